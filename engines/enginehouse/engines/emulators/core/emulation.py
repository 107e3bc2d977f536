"""What an engine's own package provides: its routes and words, and its habits as data."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from enginehouse.contract import RequestError
from enginehouse.engines.emulators.core.answers import ErrorWords, errors_in
from enginehouse.engines.emulators.core.engine import EmulatedEngine
from enginehouse.engines.emulators.core.metrics import CONTENT_TYPE, Family, render
from enginehouse.engines.emulators.core.options import Defaults, EmulatorOptions, Shutdown, Startup

if TYPE_CHECKING:
    import grpc

BODY_BYTES_MAX = 32 * 1024 * 1024


class Emulation(ABC):
    """One emulated engine with its HTTP face.

    Attributes:
        kind: as on the command line.
        version: of the engine whose published API this follows.
        server_name: what the Server header says; None: there is no such header.
        words: its errors.
    """

    kind: ClassVar[str]
    version: ClassVar[str]
    defaults: ClassVar[Defaults]
    startup: ClassVar[Startup] = Startup()
    server_name: ClassVar[str | None] = None
    words: ErrorWords

    def __init__(self, options: EmulatorOptions) -> None:
        self.options = options
        self.context_tokens_max = options.context_tokens_max or self.defaults.context_tokens_max
        self.engine = EmulatedEngine(
            options.pace,
            options.places or self.defaults.places,
            self.defaults.queue_max if options.queue_max is None else options.queue_max,
            options.faults,
            takes_while_loading=self.startup.takes_while_loading,
            takes_while_ending=self.shutdown.takes_requests,
        )

    @property
    def model(self) -> str:
        """The name that answers carry."""
        return self.options.models[0]

    @property
    @abstractmethod
    def shutdown(self) -> Shutdown:
        """What it does on SIGTERM, as it is set up."""

    @abstractmethod
    def routes(self) -> Iterable[web.RouteDef]:
        """Everything that it serves."""

    @property
    def middlewares(self) -> Iterable[Middleware]:
        """What stands before every route, from the outside in."""
        return ()

    def app(self) -> web.Application:
        """Its HTTP server."""
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[errors_in(self.words), *self.middlewares])
        app.router.add_routes(list(self.routes()))
        app.on_response_prepare.append(self._name_server)
        return app

    async def _name_server(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self.server_name is None:
            del response.headers["Server"]
        else:
            response.headers["Server"] = self.server_name

    def grpc_face(self) -> "GrpcFace":
        """Its gRPC face.

        Raises:
            RequestError: it has none.
        """
        raise RequestError(f"{self.kind} has no gRPC face to emulate; leave --grpc out")


class GrpcFace(ABC):
    """An engine's gRPC services."""

    @abstractmethod
    def add_to(self, server: "grpc.aio.Server") -> None:
        """Registers them."""


def page(families: Iterable[Family], content_type: str = CONTENT_TYPE) -> web.Response:
    """A metrics page."""
    return web.Response(body=render(families), headers={"Content-Type": content_type})


def get(path: str, handler: Handler) -> web.RouteDef:
    """A route for GET that does not answer HEAD, as none of the engines' does by default."""
    return web.get(path, handler, allow_head=False)
