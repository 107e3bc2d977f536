"""What a policy, a limit and a deployment must be."""

from collections.abc import Callable
from typing import Any

import pytest

from enginehouse.contract import RequestError
from enginehouse.services.control.validation import check_deployment, check_display_name, check_limit, check_policy
from enginehouse.v1 import admin_pb2, common_pb2, ledger_pb2, router_pb2


def policy(**fields: Any) -> admin_pb2.Policy:  # noqa: ANN401 (whatever the message takes)
    return admin_pb2.Policy(**fields)


def residency(*allow: str) -> admin_pb2.Policy:
    return policy(residency=router_pb2.Residency(allow=allow))


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
        policy(),
        residency("eu", "eu/de", "us/va", "eu/de/zone-1"),
        policy(
            chips_allowed=[common_pb2.CHIP_CLASS_GPU],
            chips_forbidden=[common_pb2.CHIP_CLASS_TPU],
            quality_floor=common_pb2.QUALITY_HIGH,
            price_nanousd_max=5,
            models=["smollm2"],
            weights=admin_pb2.ScorerWeights(cost=0.5),
            lane=common_pb2.LANE_DIRECT,
        ),
    ],
)
def test_a_policy_that_names_what_exists_is_accepted(good: admin_pb2.Policy) -> None:
    check_policy(good)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (residency(""), "residency.allow"),
        (residency("e"), "residency.allow"),
        (residency("EU"), "residency.allow"),
        (residency("eu/"), "residency.allow"),
        (residency("eu//de"), "residency.allow"),
        (residency("/eu"), "residency.allow"),
        (residency("eu de"), "residency.allow"),
        (residency("eu\n"), "residency.allow"),
        (policy(residency=router_pb2.Residency(deny=["1"])), "residency.deny"),
        (policy(chips_allowed=[common_pb2.CHIP_CLASS_UNSPECIFIED]), "chips_allowed"),
        (policy(chips_preferred=[99]), "chips_preferred"),
        (policy(quality_floor=99), "quality_floor"),
        (policy(lane=99), "lane"),
        (policy(price_nanousd_max=-1), "price_nanousd_max"),
        (policy(models=[""]), "models"),
        (policy(weights=admin_pb2.ScorerWeights(wait=-0.1)), "weights.wait"),
        (policy(weights=admin_pb2.ScorerWeights(cost=float("nan"))), "weights.cost"),
        (policy(weights=admin_pb2.ScorerWeights(chip=float("inf"))), "weights.chip"),
    ],
)
def test_a_wrong_policy_is_refused_by_its_field(bad: admin_pb2.Policy, field: str) -> None:
    with pytest.raises(RequestError, match=f"policy.{field}"):
        check_policy(bad)


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


def test_a_deployment_with_a_price_everywhere_is_accepted() -> None:
    check_deployment(deployment())


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
