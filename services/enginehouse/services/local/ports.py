"""Ports: those that are set must be free, the others are chosen."""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import yaml

from enginehouse.contract import DependencyError
from enginehouse.services.settings import Settings


def with_ports(settings: Settings) -> Settings:
    """The settings with a port in place of every 0.

    Raises:
        DependencyError: a port that is set is taken; the message says which, by whom, and what to do.
    """
    host = settings.host
    for key, port in _set_ports(settings):
        _must_be_free(host, port, key)
    with ExitStack() as held:  # held together, so that no two are the same

        def chosen(port: int) -> int:
            return port or _free_port(host, held)

        door = settings.door.model_copy(
            update={"port": chosen(settings.door.port), "admin_port": chosen(settings.door.admin_port)}
        )
        return settings.model_copy(
            update={
                "door": door,
                "nats": settings.nats.model_copy(update={"port": chosen(settings.nats.port)}),
                "control": settings.control.model_copy(update={"port": chosen(settings.control.port)}),
                "routers": [
                    router.model_copy(
                        update={"http_port": chosen(router.http_port), "grpc_port": chosen(router.grpc_port)}
                    )
                    for router in settings.routers
                ],
                "nodes": [node.model_copy(update={"port": chosen(node.port)}) for node in settings.nodes],
            }
        )


def free_port(host: str) -> int:
    """A TCP port that nobody listens on now."""
    with ExitStack() as held:
        return _free_port(host, held)


def write_settings(settings: Settings, file: Path) -> None:
    """Writes settings so that another process can read them, and no one else."""
    content: dict[str, Any] = settings.model_dump(mode="json", exclude_none=True)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(content, sort_keys=False))


def _set_ports(settings: Settings) -> list[tuple[str, int]]:
    named = [
        ("door.port", settings.door.port),
        ("door.admin_port", settings.door.admin_port),
        ("nats.port", settings.nats.port),
        ("control.port", settings.control.port),
    ]
    for router in settings.routers:
        named += [
            (f"http_port of router {router.name}", router.http_port),
            (f"grpc_port of router {router.name}", router.grpc_port),
        ]
    named += [(f"port of node {node.name}", node.port) for node in settings.nodes]
    return [(key, port) for key, port in named if port]


def _must_be_free(host: str, port: int, key: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise DependencyError(
                f"port {port} on {host} ({key}) cannot be used: {error.strerror}{_owner(port)}; "
                f"stop what uses it, or set another {key} in enginehouse.yaml (0 chooses a free one)"
            ) from error


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,)
            if listens and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return ""


def _free_port(host: str, held: ExitStack) -> int:
    listener = held.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
    listener.bind((host, 0))
    port: int = listener.getsockname()[1]
    return port
