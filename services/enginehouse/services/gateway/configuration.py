"""Envoy's configuration, filled in from the gateway's settings."""

import importlib.resources
from dataclasses import dataclass
from pathlib import Path

from enginehouse.services.deploy_files import deploy_folder, fill_in
from enginehouse.services.gateway.settings import GatewaySettings


@dataclass(frozen=True, slots=True)
class EnvoyStart:
    """One start of Envoy.

    Args:
        id: differs for every start: Envoy's node id, and the `envoy` of its shipped access log.
        access_log_path: the file that Envoy appends its access log to.
    """

    id: str
    access_log_path: Path


@dataclass(frozen=True, slots=True)
class _Values:
    settings: GatewaySettings
    start: EnvoyStart
    descriptor_path: Path
    splice_lua: str
    status_lua: str
    usage_lua: str


def render(settings: GatewaySettings, start: EnvoyStart) -> str:
    """Envoy's bootstrap configuration, as YAML."""
    scripts = deploy_folder() / "envoy"
    descriptors = Path(str(importlib.resources.files("enginehouse.v1") / "descriptors.binpb"))
    values = _Values(
        settings=settings,
        start=start,
        descriptor_path=descriptors,
        splice_lua=(scripts / "splice.lua").read_text(),
        status_lua=(scripts / "status.lua").read_text(),
        usage_lua=(scripts / "usage.lua").read_text(),
    )
    return fill_in("envoy/envoy.yaml.j2", values)
