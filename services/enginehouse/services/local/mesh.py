"""The whole mesh on one machine: every process of design section 2, real, on loopback."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping

import structlog

from enginehouse.contract import EnginehouseError
from enginehouse.services.gateway.binary import find_envoy
from enginehouse.services.local.member import Member, MemberSpec
from enginehouse.services.local.ports import free_port, with_ports, write_settings
from enginehouse.services.local.ready import grpc_is_serving, http_answers, nats_answers, tcp_accepts
from enginehouse.services.local.servers import collector_command, nats_command
from enginehouse.services.local.state import StateFolder
from enginehouse.services.settings import Settings

_log = structlog.get_logger(__name__)
_STOP_MARGIN_S = 10.0


class Mesh:
    """Starts, keeps and stops nats-server, control, routers, nodes and the gateway with its Envoy.

    Args:
        settings: what to bring up; a port of 0 is chosen.
        on_change: called after every change of a process's state.

    Raises:
        DependencyError: from `start`: the state folder is in use, a port is taken, a binary is missing, or a process
            fails.
    """

    def __init__(self, settings: Settings, on_change: Callable[[], None] = lambda: None) -> None:
        self.state = StateFolder(settings.state)
        self.settings = settings
        self.members: dict[str, Member] = {}
        self._on_change = on_change

    @property
    def door_url(self) -> str:
        """Where clients connect."""
        return f"http://{self.settings.host}:{self.settings.door.port}"

    async def start(self) -> None:
        """Starts every process and waits until each is ready. When one fails, the others are stopped again."""
        self.state.acquire()
        try:
            self.settings = with_ports(self.settings).model_copy(update={"state": self.state.path})
            specs = [*self._collector(), *self._specs()]
            write_settings(self.settings, self.state.settings_file)
            for spec in specs:
                self.members[spec.name] = Member(spec, self.state.logs, self._changed)
            await self._start_members()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Drains and stops every process: first the door, last the event plane."""
        groups = (("gateway",), self._node_names(), self._router_names(), ("control",), ("nats", "collector"))
        for group in groups:
            await asyncio.gather(*(self.members[name].stop() for name in group if name in self.members))
        self.state.release()

    def take_admin_key(self) -> str:
        """The admin key that control made at the first start of this state folder, once; empty ever after."""
        try:
            key = self.state.admin_key_file.read_text().strip()
        except FileNotFoundError:
            return ""
        self.state.admin_key_file.unlink()
        return key

    def kill(self) -> None:
        """SIGKILL to every process group, at once."""
        for member in self.members.values():
            member.kill()

    def _changed(self) -> None:
        self.state.note_processes({name: member.pid for name, member in self.members.items()})
        self._on_change()

    async def _start_members(self) -> None:
        results = await asyncio.gather(*(member.start() for member in self.members.values()), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, EnginehouseError):
                raise failure
        if failures:
            raise failures[0]

    def _node_names(self) -> tuple[str, ...]:
        return tuple(f"node-{node.name}" for node in self.settings.nodes)

    def _router_names(self) -> tuple[str, ...]:
        return tuple(router.name for router in self.settings.routers)

    def _collector(self) -> list[MemberSpec]:
        """The collector, if the settings name one; from then on the processes' telemetry goes to it."""
        telemetry, host = self.settings.telemetry, self.settings.host
        if telemetry.collector_binary is None:
            return []
        port = free_port(host)
        command = collector_command(self.settings, self.state, port)
        endpoint = {"otlp_endpoint": f"{host}:{port}"}
        self.settings = self.settings.model_copy(update={"telemetry": telemetry.model_copy(update=endpoint)})
        return [MemberSpec("collector", command, tcp_accepts(host, port))]

    def _specs(self) -> list[MemberSpec]:
        settings, host = self.settings, self.settings.host
        find_envoy(settings.door.envoy_binary)  # said here it is one plain sentence, and nothing has been started
        drain_s = max((node.drain_grace_s for node in settings.nodes), default=0.0)
        return [
            MemberSpec("nats", nats_command(settings, self.state), nats_answers(host, settings.nats.port)),
            self._serve(
                "control",
                "control",
                grpc_is_serving(host, settings.control.port),
                "--admin-key-file",
                str(self.state.admin_key_file),
            ),
            *(
                self._serve(
                    router.name, "router", http_answers(host, router.http_port, "/healthz"), "--name", router.name
                )
                for router in settings.routers
            ),
            *(
                self._serve(
                    f"node-{node.name}",
                    "node",
                    grpc_is_serving(host, node.port),
                    "--name",
                    node.name,
                    stop_grace_s=drain_s + _STOP_MARGIN_S,
                )
                for node in settings.nodes
            ),
            self._serve(
                "gateway",
                "gateway",
                http_answers(host, settings.door.port, "/health"),
                stop_grace_s=settings.door.drain_grace_s + _STOP_MARGIN_S,
            ),
        ]

    def _serve(
        self,
        name: str,
        process: str,
        is_ready: Callable[[], Awaitable[bool]],
        *arguments: str,
        stop_grace_s: float = 5.0,
    ) -> MemberSpec:
        command = [sys.executable, "-m", "enginehouse.cli.serve", process, *arguments]
        command += ["--config", str(self.state.settings_file)]
        return MemberSpec(name, command, is_ready, environment=_environment(), stop_grace_s=stop_grace_s)


def _environment() -> Mapping[str, str]:
    # What the environment set is in the settings file already; ports chosen there must not be overruled again.
    overruling = [name for name in os.environ if name.startswith("ENGINEHOUSE_") and name != "ENGINEHOUSE_CACHE"]
    return {name: value for name, value in os.environ.items() if name not in overruling}
