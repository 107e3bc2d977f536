"""The filled-in configurations, as the programs that read them judge them."""

import subprocess
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
import yaml

from enginehouse.services.deploy_files import CollectorValues, NatsValues, deploy_folder, fill_in
from enginehouse.services.gateway import Address, EnvoyStart, GatewaySettings, RouterEndpoint, find_envoy, render
from enginehouse.services.local.servers import find_nats_server

ROUTER = RouterEndpoint("router-1", Address("127.0.0.1", 8001), Address("127.0.0.1", 9001))
NAMED_ROUTER = RouterEndpoint("router-2", Address("router-2.example", 8001), Address("router-2.example", 9001))
SETTINGS = GatewaySettings(
    id="gateway",
    listen=Address("127.0.0.1", 8080),
    admin_port=0,
    state_folder=Path("state"),
    routers=(ROUTER,),
    control=Address("127.0.0.1", 9000),
)


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(SETTINGS, routers=(ROUTER, NAMED_ROUTER), control=Address("control.example", 9000)),
        replace(SETTINGS, otlp_endpoint=Address("127.0.0.1", 4317)),
        replace(SETTINGS, listen=Address("::1", 8080), request_body_bytes_max=64 * 1024 * 1024),
        replace(SETTINGS, state_folder=Path("a folder: 'quoted' \"twice\" # and {more}")),
    ],
    ids=["one router", "names", "traces", "IPv6", "odd folder"],
)
def test_envoy_accepts_its_configuration(settings: GatewaySettings, tmp_path: Path) -> None:
    folder = tmp_path / settings.state_folder
    folder.mkdir()
    settings = replace(settings, state_folder=folder)
    configuration = tmp_path / "envoy.yaml"
    configuration.write_text(render(settings, EnvoyStart("gateway-1", folder / "access.jsonl")))
    command = [str(find_envoy()), "--mode", "validate", "--log-level", "error", "--config-path", str(configuration)]
    validated = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert validated.returncode == 0, validated.stderr[-2000:]


def test_configuration_without_a_collector_has_no_traces() -> None:
    text = render(SETTINGS, EnvoyStart("gateway-1", Path("access.jsonl")))
    assert "opentelemetry" not in text.lower()
    assert "name: otel" not in text


def test_every_router_has_a_log_and_all_get_what_no_router_owns() -> None:
    settings = replace(SETTINGS, routers=(ROUTER, NAMED_ROUTER))
    bootstrap = yaml.safe_load(render(settings, EnvoyStart("gateway-1", Path("access.jsonl"))))
    listener = bootstrap["static_resources"]["listeners"][0]
    loggers = listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"][1:]
    filters = [logger["filter"]["and_filter"]["filters"][1]["metadata_filter"] for logger in loggers]
    owners = [item["matcher"]["value"]["string_match"]["exact"] for item in filters]
    assert owners == ["router-1", "router-2"]
    assert [item["match_if_key_not_found"] for item in filters] == [True, True]


@pytest.mark.parametrize("monitor_port", [None, 8222])
@pytest.mark.parametrize("sync_interval", ["always", "2m"])
def test_nats_server_accepts_its_configuration(tmp_path: Path, sync_interval: str, monitor_port: int | None) -> None:
    store = tmp_path / 'a "store"'
    values = NatsValues("nats-1", "127.0.0.1", 4222, store, sync_interval=sync_interval, monitor_port=monitor_port)
    configuration = tmp_path / "nats.conf"
    configuration.write_text(fill_in("nats/nats.conf.j2", values))
    program = str(find_nats_server())
    tested = subprocess.run([program, "-t", "-c", str(configuration)], capture_output=True, text=True, timeout=30)
    assert tested.returncode == 0, tested.stderr
    assert ("http" in configuration.read_text()) is (monitor_port is not None)


@pytest.mark.parametrize(
    ("values", "exporters"),
    [
        (CollectorValues("127.0.0.1", 4317), ["debug"]),
        (
            CollectorValues("127.0.0.1", 4317, upstream="otel.example:4317", file_path=Path("a: b"), prometheus_port=1),
            ["debug", "otlp_grpc", "file", "prometheus"],
        ),
    ],
)
def test_collector_exports_where_it_is_told_and_drops_content(values: CollectorValues, exporters: list[str]) -> None:
    configuration = yaml.safe_load(fill_in("otel/collector.yaml.j2", values))
    assert list(configuration["exporters"]) == exporters
    pipelines = configuration["service"]["pipelines"]
    assert pipelines["metrics"]["exporters"] == exporters
    for name in ("traces", "logs"):
        assert "attributes/no_content" in pipelines[name]["processors"]
        assert set(pipelines[name]["exporters"]) == set(exporters) - {"prometheus"}
    deleted = {action["key"] for action in configuration["processors"]["attributes/no_content"]["actions"]}
    assert {"gen_ai.input.messages", "gen_ai.output.messages", "http.request.header.authorization"} <= deleted


def test_variable_that_is_not_given_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        fill_in("nats/nats.conf.j2", CollectorValues("127.0.0.1", 4317))


def test_values_are_no_loose_names() -> None:
    with pytest.raises(TypeError, match="dataclass"):
        fill_in("nats/nats.conf.j2", {"port": 1})


def test_templates_are_the_checkouts_own() -> None:
    assert deploy_folder() == Path(__file__).parents[3] / "deploy"
