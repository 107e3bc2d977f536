"""Drops replicas whose engine lacks a feature that the request uses."""

from enginehouse.contract import Reason
from enginehouse.router.filters.filter import Kind
from enginehouse.router.replica import Replica
from enginehouse.v1.common_pb2 import Feature


class FeatureFilter:
    """The engine must speak every feature asked: tools, schemas, images, log probabilities and so on."""

    name = "feature"
    refusal = Reason.CAPABILITY_NOT_FOUND

    def drop(self, replica: Replica, kind: Kind) -> str | None:
        """See `Filter`."""
        missing = kind.features - replica.capabilities.features
        if not missing:
            return None
        names = sorted(Feature.Name(feature).removeprefix("FEATURE_").lower() for feature in missing)
        return f"lacks {', '.join(names)}"
