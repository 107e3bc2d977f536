"""Requests whose end is told before they are admitted."""

from collections.abc import Mapping
from typing import Any

import pytest

from enginehouse.services.access_log import AccessRecord
from enginehouse.services.router import settlement
from enginehouse.services.router.settlement import Settler
from enginehouse.v1 import common_pb2, events_pb2, router_pb2


class Allowances:
    """Notes what each request was charged."""

    identity = ("r", 1)

    def __init__(self) -> None:
        self.used: dict[str, Mapping[str, int]] = {}

    def settle(self, request_id: str, used: Mapping[str, int], deployment: str = "") -> int:
        self.used[request_id] = used
        return 0


def ticket(request_id: str) -> router_pb2.Ticket:
    hold = router_pb2.Hold(limit="l", amount=5)
    attempt = router_pb2.Attempt(replica="a", address="127.0.0.1:1")
    return router_pb2.Ticket(
        request_id=request_id,
        router="r",
        fence=1,
        lane=common_pb2.LANE_DIRECT,
        attempts=[attempt],
        holds=[hold],
    )


def unowned(request_id: str) -> AccessRecord:
    """What Envoy logs when it gave up before a router had answered."""
    return AccessRecord(
        request_id=request_id,
        router="",
        ticket=None,
        address="",
        replica="",
        http_status=503,
        grpc_status=None,
        usage=None,
        client_left=False,
        upstream_broke=False,
        started_ms=0,
        ended_ms=0,
    )


class Desk:
    """A settler, what was charged, and what was told."""

    def __init__(self) -> None:
        self.allowances = Allowances()
        self.told: list[events_pb2.RequestSettled] = []
        noted: Any = self.allowances
        self.settler = Settler(
            noted, publish=lambda _kind, _id, _what, event: self.told.append(event), boot_ms=lambda: 0, longest_ms=1
        )


def test_request_that_envoy_gave_up_before_it_was_admitted_holds_nothing() -> None:
    desk = Desk()
    desk.settler.logged(unowned("late"))
    desk.settler.admit(ticket("late"))
    assert desk.settler.count == 0
    assert desk.allowances.used == {"late": {}}
    assert [(event.outcome, event.charged_nanousd) for event in desk.told] == [("released", 0)]


def test_request_that_envoy_waits_for_is_on_its_way() -> None:
    desk = Desk()
    desk.settler.logged(unowned("other"))
    desk.settler.admit(ticket("one"))
    assert desk.settler.is_admitted("one")
    assert desk.allowances.used == {}


def test_only_so_many_given_up_requests_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "OVER_MAX", 2)
    desk = Desk()
    for name in ("first", "second", "third"):
        desk.settler.logged(unowned(name))
    for name in ("first", "second", "third"):
        desk.settler.admit(ticket(name))
    assert desk.settler.count == 1
    assert desk.settler.is_admitted("first")
