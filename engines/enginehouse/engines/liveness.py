"""Whether a running engine is alive: by token progress, not by a health page (vLLM's is green while it hangs)."""

from collections.abc import Collection

from enginehouse.contract import EngineError, EnginehouseError, Reason
from enginehouse.engines.clock import Clock, within
from enginehouse.engines.load import LoadReader
from enginehouse.engines.metrics import LoadSample
from enginehouse.engines.prober import Prober
from enginehouse.v1 import common_pb2


class LivenessCheck:
    """Checks one run of an engine, again and again.

    An engine whose counters moved since the last check is alive. One that is busy and did not move is not. One that is
    idle, or that has no counters, is asked for one token.
    """

    def __init__(
        self,
        prober: Prober,
        loads: LoadReader,
        clock: Clock,
        *,
        address: str,
        served_model: str,
        operations: Collection[common_pb2.Operation.ValueType],
        timeout_s: float,
    ) -> None:
        self._prober = prober
        self._loads = loads
        self._clock = clock
        self._address = address
        self._served_model = served_model
        self._operations = operations
        self._timeout_s = timeout_s
        self._progress: float | None = None

    async def check(self) -> str:
        """An empty string for an engine that is alive, otherwise what is wrong with it."""
        try:
            await within(self._clock, self._timeout_s, self._check())
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except EnginehouseError as error:
            return error.message
        except OSError as error:
            return f"not reachable: {error.strerror or type(error).__name__}"
        return ""

    async def _check(self) -> None:
        sample = await self._loads.sample(self._timeout_s)
        previous, self._progress = self._progress, None if sample is None else sample.progress
        if sample is not None:
            if previous is not None and sample.progress != previous:
                return
            if sample.is_busy and previous is not None:
                raise EngineError(_stuck(sample), Reason.ENGINE_FAILED)
            if sample.is_busy:
                return  # there is no earlier reading to compare with; the next check will tell
        await self._prober.probe_live(self._address, self._served_model, self._operations)
        own = await self._loads.sample(self._timeout_s)  # our own token must not pass for progress next time
        self._progress = None if own is None else own.progress


def _stuck(sample: LoadSample) -> str:
    load = sample.load
    return f"{load.running_requests} requests run and {load.waiting_requests} wait, but nothing moves"
