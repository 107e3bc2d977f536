"""How replicas are called: by nodes, which run them, and by routers, which wait for them."""

_FIRST_REVISION = 1


def replica_id_of(deployment_id: str, node: str, number: int, revision: int = _FIRST_REVISION) -> str:
    """The id of the `number`-th replica of a deployment on a node, from 0. It holds no dots, as subjects want it.

    Args:
        revision: of the deployment, for which its engine is started. So the engine that takes another's place has an id
            of its own while both run, and one id never names two different engines.
    """
    place = f"{deployment_id}-{node}-{number}"
    return place if revision <= _FIRST_REVISION else f"{place}-r{revision}"


def is_in_place(replica_id: str, deployment_id: str, node: str, number: int) -> bool:
    """Whether a replica of that deployment is its `number`-th one on the node, of whatever revision."""
    place = f"{deployment_id}-{node}-{number}"
    return replica_id == place or replica_id.startswith(f"{place}-r")
