"""Where the files of deploy/ are, and how they are filled in."""

import sysconfig
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

from enginehouse.contract import DependencyError

_INSTALLED = Path("share") / "enginehouse" / "deploy"


@dataclass(frozen=True, slots=True)
class NatsValues:
    """What ``nats/nats.conf.j2`` is filled in with.

    Args:
        server_name: differs for every server of a cluster.
        host: where it listens.
        port: where it listens.
        store_folder: JetStream's streams and buckets are kept here.
        sync_interval: ``always``, or a time such as ``2m``, after which writes are synced to disk.
        monitor_port: port on loopback for its monitoring pages. None: none.
        payload_bytes_max: a larger message is refused.
        memory_bytes_max: what streams in memory may take.
        file_bytes_max: what streams on disk may take.
    """

    server_name: str
    host: str
    port: int
    store_folder: Path
    sync_interval: str = "2m"
    monitor_port: int | None = None
    payload_bytes_max: int = 1024 * 1024
    memory_bytes_max: int = 64 * 1024 * 1024
    file_bytes_max: int = 4 * 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CollectorValues:
    """What ``otel/collector.yaml.j2`` is filled in with.

    Args:
        host: where it listens for OTLP.
        grpc_port: where it listens for OTLP over gRPC.
        upstream: ``host:port`` of the collector or backend that gets everything, over OTLP/gRPC. None: none.
        upstream_is_plaintext: whether `upstream` is spoken to without TLS.
        file_path: everything is also appended here, as JSON lines. None: not.
        prometheus_port: port on loopback where Prometheus may fetch the metrics. None: none.
        memory_mib_max: past this it refuses data until it has sent some on.
    """

    host: str
    grpc_port: int
    upstream: str | None = None
    upstream_is_plaintext: bool = False
    file_path: Path | None = None
    prometheus_port: int | None = None
    memory_mib_max: int = 256


def deploy_folder() -> Path:
    """The folder deploy/: a checkout's own, else the one that the wheel installed.

    Raises:
        DependencyError: neither is there.
    """
    checkout = Path(__file__).parents[3] / "deploy"
    installed = Path(sysconfig.get_path("data")) / _INSTALLED
    for folder in (checkout, installed):
        if (folder / "envoy").is_dir():
            return folder
    raise DependencyError(
        f"the deployment templates are neither at {checkout} nor at {installed}: install enginehouse again"
    )


def fill_in(template: str, values: object) -> str:
    """The template `template`, a path below deploy/, with the fields of the dataclass `values` filled in.

    Raises:
        jinja2.UndefinedError: the template names a variable that `values` does not have.
    """
    import jinja2

    if not is_dataclass(values):
        raise TypeError(f"values must be a dataclass, not {type(values).__name__}")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(deploy_folder()),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (YAML and the NATS format, not HTML; values pass through tojson)
    )
    environment.policies["json.dumps_kwargs"] = {"default": _refuse}
    context = {field.name: getattr(values, field.name) for field in fields(values)}
    return environment.get_template(template).render(context)


def _refuse(value: object) -> object:
    # A variable that is not there says so itself, which the JSON encoder would hide.
    raise TypeError(f"{value} is no JSON value: write it as text in the template")
