"""How a simulated router admits: the product's admission, with nothing to count prompts and nobody to read records."""

from collections.abc import Callable

from google.protobuf.message import Message

from enginehouse.router import Replica, Request, Residency
from enginehouse.services.bus import Outgoing
from enginehouse.services.router.admission import Admission
from enginehouse.services.router.affinity import Affinity
from enginehouse.services.router.deliberation import Deliberation
from enginehouse.services.router.recorder import Recorder
from enginehouse.services.router.settlement import Settler
from enginehouse.services.router.waiting import SharedAllowances, WaitingRoom
from enginehouse.v1 import inference_pb2
from tests.simulation.network import Network, Payload

_KEY = b"the same in every run, of course"
_WAIT_MS_MAX = 800


def make_admission(
    router: str,
    allowances: SharedAllowances,
    settler: Settler,
    boot_ms: Callable[[], int],
    wall_ms: Callable[[], int],
) -> tuple[Admission, Deliberation]:
    """Admission as the router process puts it together."""
    allowances.room = WaitingRoom()
    deliberation = Deliberation(
        allowances=allowances,
        in_flight=settler.in_flight,
        loads={},
        affinity=Affinity(now_ms=boot_ms, make_key=lambda: _KEY),
        counter=_NoCounter(),
        room=allowances.room,
        wait_ms_max=_WAIT_MS_MAX,
        now_ms=boot_ms,
    )
    admission = Admission(
        router=router,
        address=router,
        deliberation=deliberation,
        allowances=allowances,
        settler=settler,
        recorder=Recorder(router=router, place="eu/de", put=_no_record, now_ms=wall_ms),
        publish=_no_event,
        now_ms=wall_ms,
    )
    return admission, deliberation


class Channel:
    """A gRPC channel from one simulated process to another, as far as a generated stub needs it."""

    def __init__(self, network: Network, source: str, target: str) -> None:
        self._network = network
        self._source = source
        self._target = target

    def unary_unary(self, path: str, *_serializers: object, **_options: object) -> Callable[..., Payload]:
        """A method that is answered once."""
        method = path.rpartition("/")[2]

        def call(request: Payload, timeout: float = 60.0, **_more: object) -> Payload:
            return self._network.call(self._source, self._target, method, request, timeout)

        return call

    def unary_stream(self, _path: str, *_serializers: object, **_options: object) -> None:
        """No stream is ever asked for here."""

    async def close(self) -> None:
        """There is nothing to close."""


class _NoCounter:
    """Nobody counts: no prompt is sent."""

    async def count(
        self,
        question: inference_pb2.CountTokensRequest,
        request: Request,
        replicas: tuple[Replica, ...],
        residency: tuple[Residency, ...],
    ) -> tuple[tuple[str, int], ...]:
        """Nothing is known."""
        return ()


def _no_record(message: Outgoing) -> None:
    """Nobody reads records."""


def _no_event(kind: str, subject_id: str, what: str, payload: Message) -> None:
    """Nobody listens."""
