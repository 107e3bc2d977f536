"""What an emulator is told, whichever engine it stands for."""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from enginehouse.engines.emulators.core.batch import Pace
from enginehouse.engines.emulators.core.faults import Fault


class Face(StrEnum):
    """The protocol on the port."""

    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """What None leaves open is the engine's own default.

    Attributes:
        models: the names it serves, the first one for requests that name none.
        context_tokens_max: prompt and output of one request.
        places: requests side by side.
        queue_max: requests that may wait.
        load_s: from the start until the model is loaded.
        warmup_s: from then until the engine says that it is ready.
        drain_s: how long requests may go on after SIGTERM, where the engine has such a setting.
        api_key: which the engine asks for, on the routes that it guards.
        forces_usage: usage in every stream, asked for or not, where the engine has such a setting.
        sleep_mode: it can be put to sleep, where the engine has such a setting.
        controls: offer /emulator/... ; for tests.
    """

    models: tuple[str, ...] = ("emulated",)
    host: str = "127.0.0.1"
    port: int = 0
    face: Face = Face.HTTP
    context_tokens_max: int | None = None
    places: int | None = None
    queue_max: int | None = None
    pace: Pace = field(default_factory=Pace)
    load_s: float = 0.0
    warmup_s: float = 0.0
    drain_s: float | None = None
    api_key: str | None = None
    forces_usage: bool = False
    sleep_mode: bool = False
    controls: bool = False
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Defaults:
    """What an engine does when it is told nothing."""

    context_tokens_max: int
    places: int
    queue_max: int


@dataclass(frozen=True, slots=True)
class Startup:
    """How an engine starts.

    Attributes:
        listens_while_loading: its port is open before the model is loaded.
        loads_on_request: the model is loaded when the first request comes, not before.
        takes_while_loading: requests that come before the model is loaded wait for it; otherwise they are refused.
    """

    listens_while_loading: bool = False
    loads_on_request: bool = False
    takes_while_loading: bool = False


@dataclass(frozen=True, slots=True)
class Shutdown:
    """What an engine does on SIGTERM.

    Attributes:
        drain_s: how long requests may go on.
        closes_port: at once. Otherwise new requests get through meanwhile.
        takes_requests: those are answered; otherwise they are refused.
        stalls: requests that go on get no further token.
        says_error: requests that did not end in time get the engine's error; otherwise their connection is cut.
    """

    drain_s: float = math.inf
    closes_port: bool = True
    takes_requests: bool = False
    stalls: bool = False
    says_error: bool = False
