"""What of a deployment its engines are started with: nodes and routers tell by it which replicas are outdated."""

from hashlib import blake2b

from enginehouse.v1 import admin_pb2

_HASH_BYTES = 8


def settings_hash(deployment: admin_pb2.Deployment) -> str:
    """A hash of the kind of engine, its settings, and the name under which it serves.

    Prices, labels, bounds on requests in flight, tenants, aliases and lanes are no part of it: they are a router's to
    keep, and no engine is started again for them.
    """
    started_with = admin_pb2.Deployment(model=deployment.model, engine=deployment.engine, settings=deployment.settings)
    return blake2b(started_with.SerializeToString(deterministic=True), digest_size=_HASH_BYTES).hexdigest()
