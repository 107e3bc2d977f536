"""The control process: control with its event plane."""

from collections.abc import Callable

from enginehouse.services.access_log import read_line
from enginehouse.services.background import Background
from enginehouse.services.bus import (
    DECISIONS_STREAM,
    DECISIONS_SUBJECTS,
    DESIRED,
    STREAM,
    SUBJECTS,
    BucketStore,
    Bus,
    EventPublisher,
    ensure_stream,
)
from enginehouse.services.control import Control, ControlSettings, DeclaredResources, SystemClock
from enginehouse.services.settings import Settings, resources

_SQLITE = "sqlite:///{}"


class ControlProcess:
    """Control with its event plane: the stream is there, desired state is published, events are sent.

    Args:
        settings: of the mesh.
        say_admin_key: takes the admin key that the first start made; it is shown there or nowhere.
    """

    def __init__(self, settings: Settings, say_admin_key: Callable[[str], None]) -> None:
        self._settings = settings
        self._say_admin_key = say_admin_key
        self._bus = Bus(settings.nats_url, "control")
        self._events = EventPublisher(self._bus, source="/control", place=settings.place)
        self._background = Background()
        self._control = Control(
            ControlSettings(
                database_url=settings.control.database_url or _SQLITE.format(settings.state / "control.db"),
                host=settings.host,
                port=settings.control.port,
                socket_path=settings.state / "control.sock",
                term_s=settings.control.allowance_term_s,
                longest_request_s=settings.door.longest_request_s,
                jurisdictions=settings.jurisdiction_tree,
            ),
            clock=SystemClock(),
            events=self._events,
            desired=BucketStore(self._bus, DESIRED),
            read_line=read_line,
        )

    async def start(self) -> None:
        """Serves, with the declared resources in place."""
        await self._bus.start()
        await self._events.start()
        started = await self._control.start()
        if started.admin_secret:
            self._say_admin_key(started.admin_secret)
        await self._control.apply_declared(
            DeclaredResources(
                tenants=resources.tenants(self._settings),
                limits=resources.limits(self._settings),
                deployments=resources.deployments(self._settings),
                policy_set=resources.policy_set(self._settings),
            )
        )
        self._background.start(self._keep_streams(), "keep the streams")

    async def stop(self) -> None:
        """Ends."""
        await self._background.stop()
        await self._control.stop()
        await self._events.stop()
        await self._bus.stop()

    async def _keep_streams(self) -> None:
        nats = self._settings.nats
        while True:
            generation = await self._bus.connected()
            for name, subjects in ((STREAM, SUBJECTS), (DECISIONS_STREAM, DECISIONS_SUBJECTS)):
                await ensure_stream(self._bus, name, subjects, age_s=nats.events_age_s, bytes_max=nats.events_bytes_max)
            self._control.store_returned()
            await self._bus.lost(generation)
