"""The gateway: one Envoy, its configuration, its restarts, and its access log on the way to control."""

from enginehouse.services.gateway.binary import find_envoy
from enginehouse.services.gateway.configuration import EnvoyStart, render
from enginehouse.services.gateway.gateway import Gateway
from enginehouse.services.gateway.settings import Address, GatewaySettings, RouterEndpoint
from enginehouse.services.gateway.shipper import ShipperSettings

__all__ = [
    "Address",
    "EnvoyStart",
    "Gateway",
    "GatewaySettings",
    "RouterEndpoint",
    "ShipperSettings",
    "find_envoy",
    "render",
]
