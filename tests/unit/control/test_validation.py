"""What a limit and a deployment must be."""

from collections.abc import Callable
from typing import Any

import pytest

from enginehouse.contract import RequestError
from enginehouse.services.control.validation import check_deployment, check_display_name, check_limit
from enginehouse.v1 import admin_pb2, common_pb2, ledger_pb2


def limit(**fields: Any) -> admin_pb2.Limit:  # noqa: ANN401 (whatever the message takes)
    whole: dict[str, Any] = {
        "unit": ledger_pb2.LIMIT_UNIT_USD,
        "window": ledger_pb2.LIMIT_WINDOW_DAY,
        "cap": 1,
        "time_zone": "Europe/Berlin",
    }
    return admin_pb2.Limit(**(whole | fields))


def deployment(change: Callable[[admin_pb2.Deployment], object] = lambda _: None) -> admin_pb2.Deployment:
    price = common_pb2.Price(output_nanousd_per_million_tokens=1)
    whole = admin_pb2.Deployment(
        model="org/Model-1.5:chat",
        aliases=["small"],
        engine="llama-cpp",
        placements=[admin_pb2.Placement(node="n1", price=price), admin_pb2.Placement(node="n2", price=price)],
    )
    change(whole)
    return whole


@pytest.mark.parametrize(
    "good",
    [
        limit(),
        limit(time_zone=""),
        limit(cap=10**18),
        limit(unit=ledger_pb2.LIMIT_UNIT_IN_FLIGHT, window=ledger_pb2.LIMIT_WINDOW_NONE),
    ],
)
def test_a_limit_that_can_be_counted_is_accepted(good: admin_pb2.Limit) -> None:
    check_limit(good)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (limit(unit=ledger_pb2.LIMIT_UNIT_UNSPECIFIED), "unit"),
        (limit(unit=99), "unit"),
        (limit(window=ledger_pb2.LIMIT_WINDOW_UNSPECIFIED), "window"),
        (limit(unit=ledger_pb2.LIMIT_UNIT_IN_FLIGHT), "window"),
        (limit(cap=0), "cap"),
        (limit(cap=-1), "cap"),
        (limit(cap=10**18 + 1), "cap"),
        (limit(time_zone="Mars/Olympus"), "time_zone"),
        (limit(time_zone="../../etc/passwd"), "time_zone"),
        (limit(time_zone="Europe"), "time_zone"),
    ],
)
def test_a_wrong_limit_is_refused_by_its_field(bad: admin_pb2.Limit, field: str) -> None:
    with pytest.raises(RequestError, match=f"limit.{field}"):
        check_limit(bad)


def hourly(**fields: int) -> common_pb2.Price:
    return common_pb2.Price(hour_nanousd=2_500_000_000, **fields)


def test_a_deployment_with_a_price_everywhere_is_accepted() -> None:
    check_deployment(deployment())
    check_deployment(deployment(lambda d: d.placements[1].quality_scores.update({"code": 0.0, "chat": 1.0})))


def test_an_hour_is_a_price_with_declared_rates_and_with_measured_ones() -> None:
    check_deployment(deployment(lambda d: d.placements[0].price.CopyFrom(hourly())))
    check_deployment(deployment(lambda d: d.placements[0].price.CopyFrom(hourly(input_tokens_per_second=1))))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda d: d.ClearField("model"), "model"),
        (lambda d: d.aliases.append("org/Model-1.5:chat"), "aliases"),
        (lambda d: d.aliases.append("with space"), "aliases"),
        (lambda d: d.ClearField("engine"), "engine"),
        (lambda d: setattr(d, "lane", 99), "lane"),
        (lambda d: d.tenants.append("acme"), "organizations"),
        (lambda d: setattr(d.settings, "threads", -1), "settings.threads"),
        (lambda d: d.settings.environment.update({"1A": ""}), "settings.environment"),
        (lambda d: setattr(d.settings, "external_url", "ftp://host"), "external_url"),
        (lambda d: setattr(d.settings, "external_url", "http://"), "external_url"),
        (lambda d: setattr(d.placements[0], "node", "n2"), "placements"),
        (lambda d: setattr(d.placements[0], "node", "n.1"), "placements.node"),
        (lambda d: d.placements[1].ClearField("price"), r"placements\[n2\].price"),
        (lambda d: setattr(d.placements[1].price, "request_nanousd", -1), r"placements\[n2\].price"),
        (lambda d: setattr(d.placements[1].price, "hour_nanousd", -1), r"placements\[n2\].price.hour_nanousd"),
        (
            lambda d: setattr(d.placements[1].price, "output_tokens_per_second", 9),
            r"placements\[n2\].price.hour_nanousd",
        ),
        (lambda d: d.placements[1].price.CopyFrom(hourly(output_tokens_per_second=-1)), "output_tokens_per_second"),
        (lambda d: d.placements[1].price.CopyFrom(common_pb2.Price(input_tokens_per_second=9)), "hour_nanousd"),
        (lambda d: d.placements[1].quality_scores.update({"code": 1.1}), r"quality_scores\[code\] is 1.1"),
        (lambda d: d.placements[1].quality_scores.update({"code": float("nan")}), "quality_scores"),
        (lambda d: setattr(d.placements[1], "replicas", -1), r"placements\[n2\].replicas"),
        (lambda d: setattr(d.placements[1], "quality", 99), r"placements\[n2\].quality"),
    ],
)
def test_a_wrong_deployment_is_refused_by_its_field(
    change: Callable[[admin_pb2.Deployment], object], field: str
) -> None:
    with pytest.raises(RequestError, match=field):
        check_deployment(deployment(change))


@pytest.mark.parametrize("name", ["", "Acme Ltd", "Ä" * 200])
def test_a_printable_display_name_is_accepted(name: str) -> None:
    check_display_name(name)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "x" * 201])
def test_a_display_name_that_would_disturb_a_screen_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="display_name"):
        check_display_name(name)
