"""What a gateway takes as settings."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from enginehouse.contract import RequestError
from enginehouse.services.gateway import Address, GatewaySettings, RouterEndpoint

ROUTER = RouterEndpoint("router-1", Address("127.0.0.1", 1), Address("127.0.0.1", 2))
SETTINGS = GatewaySettings(
    id="gateway",
    listen=Address("127.0.0.1", 8080),
    admin_port=0,
    state_folder=Path("state"),
    routers=(ROUTER,),
    control=Address("127.0.0.1", 3),
)


@pytest.mark.parametrize(
    ("text", "host", "port", "is_ip"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80, True),
        ("[::1]:65535", "::1", 65535, True),
        ("control.example:9000", "control.example", 9000, False),
    ],
)
def test_address_is_read_and_written_alike(text: str, host: str, port: int, is_ip: bool) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.is_ip) == (host, port, is_ip)
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:x", "host:-1", "host:65536", "host:²", "http://host:80"]
)
def test_text_that_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RequestError, match="host:port"):
        Address.parse(text)


@pytest.mark.parametrize("router_id", ["", "Router", "router 1", "router\n", "-router", "a" * 64, 'x"}'])
def test_id_that_envoys_configuration_could_not_hold_is_refused(router_id: str) -> None:
    with pytest.raises(RequestError, match="is no id"):
        replace(SETTINGS, routers=(replace(ROUTER, id=router_id),))


def test_gateway_needs_routers_with_ids_of_their_own() -> None:
    with pytest.raises(RequestError, match="has no routers"):
        replace(SETTINGS, routers=())
    with pytest.raises(RequestError, match="must differ"):
        replace(SETTINGS, routers=(ROUTER, ROUTER))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("request_body_bytes_max", lambda: replace(SETTINGS, request_body_bytes_max=0)),
        ("response_body_bytes_max", lambda: replace(SETTINGS, response_body_bytes_max=0)),
        ("longest_request_s", lambda: replace(SETTINGS, longest_request_s=0)),
        ("check_timeout_ms", lambda: replace(SETTINGS, check_timeout_ms=49)),
        ("concurrency", lambda: replace(SETTINGS, concurrency=0)),
    ],
)
def test_bound_that_is_too_low_is_refused_by_name(name: str, settings: Callable[[], GatewaySettings]) -> None:
    with pytest.raises(RequestError, match=f"{name} is (0|49): it must be at least (1|50)"):
        settings()
