"""A limit: a cap on one unit within one window for one scope. In USD it is a budget."""

from dataclasses import dataclass

from enginehouse.v1 import ledger_pb2
from enginehouse.v1.ledger_pb2 import LimitUnit, LimitWindow

USD = ledger_pb2.LIMIT_UNIT_USD
TOKENS = ledger_pb2.LIMIT_UNIT_TOKENS
REQUESTS = ledger_pb2.LIMIT_UNIT_REQUESTS
IN_FLIGHT = ledger_pb2.LIMIT_UNIT_IN_FLIGHT


@dataclass(frozen=True, slots=True)
class Limit:
    """What is capped, for whom, and in which windows.

    Attributes:
        id: the last segment of "limits/{limit}".
        scope: resource name of an organization, tenant, project or key, "models/{model}" or "deployments/{deployment}".
        unit: nano-USD, tokens, requests, or requests in flight.
        window: how long a cap counts before it starts anew.
        cap: in the unit; positive.
        time_zone: IANA name; days and months begin at its midnight.
        start_ms, end_ms: the period in which it counts, in Unix milliseconds. Outside it nothing is capped. None: from
            ever, for ever.
        uid: differs for every limit that ever was, also of one id.
    """

    id: str
    scope: str
    unit: LimitUnit.ValueType
    window: LimitWindow.ValueType
    cap: int
    time_zone: str = "UTC"
    start_ms: int | None = None
    end_ms: int | None = None
    uid: int = 0

    def covers(self, resource: str) -> bool:
        """Whether `resource` is the scope itself or lies below it."""
        return resource == self.scope or resource.startswith(self.scope + "/")

    @property
    def is_charged(self) -> bool:
        """Whether a finished request leaves a charge. A slot in flight is only given back."""
        return self.unit != IN_FLIGHT
