"""Settings that are wrong: refused with file, line, key, value and what was expected."""

from pathlib import Path

import pytest

from enginehouse.contract import RequestError
from enginehouse.services.deploy_files import deploy_folder
from enginehouse.services.settings import load, resources
from tests.unit.settings.support import BASE, BASE_LINES, refusal, written

LIMIT = "limits:\n  - {name: a, scope: organization, unit: usd, window: day, cap: 5}\n"
PRICES = BASE.replace("{input: 1}", "%s")


def test_the_settings_that_are_shipped_are_right() -> None:
    settings = load(deploy_folder() / "enginehouse.yaml")
    assert settings.currency == "USD"
    assert len(resources.deployments(settings)) == len(settings.deployments)


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("currency: EUR\n", 1, "currency: Input should be 'USD'; found 'EUR'"),
        ("jurisdictions: {groups: {mine: [atlantis]}}\n", 1, "jurisdictions.groups.mine.0: jurisdiction 'atlantis'"),
        ("jurisdictions:\n  groups:\n    mine: [de]\n    eu: [de]\n", 4, "group 'eu' is a built-in group already"),
        ("jurisdictions:\n  groups:\n    mine: []\n", 3, "group 'mine' has no members"),
        ("jurisdictions:\n  groups:\n    fr: [de]\n", 3, "group 'fr' has the name of a country"),
        ("jurisdictions:\n  groups:\n    mine:\n      - de\n      - 'aws:x'\n", 5, "'aws:x' is not a known region"),
        ("jurisdictions:\n  groups:\n    mine: [mine, de]\n", 3, "group 'mine' contains itself: mine > mine"),
        (LIMIT.replace("}", ", end: 2020-01-01}"), 2, "limits.0.end: 2020-01-01 00:00:00 has passed"),
        (LIMIT.replace("}", ", start: 2099-02-01, end: 2099-01-01}"), 2, "end 2099-01-01 00:00:00 is not after start"),
        (LIMIT.replace("}", ", time_zone: Mars/Olympus}"), 2, "'Mars/Olympus' is not an IANA time zone"),
        (
            LIMIT.replace("}", ", end: 2099-02-01}")
            + "  - {name: b, scope: organization, unit: usd, window: day, cap: 6, start: 2099-01-31}\n",
            3,
            "give them a start and an end apart",
        ),
        (LIMIT.replace("cap: 5", "cap: 0"), 2, "limits.0.cap: Input should be greater than 0; found 0"),
        (LIMIT.replace("cap: 5", "cap: -5"), 2, "limits.0.cap: Input should be greater than 0"),
        (LIMIT.replace("cap: 5", "cap: 2000000000"), 2, "cap 2000000000 is more than 1000000000 USD"),
        (LIMIT.replace("usd", "requests").replace("5", "5.5"), 2, "cap 5.5 of unit requests must be a whole number"),
        (
            LIMIT + "  - {name: b, scope: organization, unit: usd, window: day, cap: 6, time_zone: Asia/Tokyo}\n",
            3,
            "limits.1: 'b' limits what 'a' limits already (usd of organization in window day)",
        ),
        (LIMIT + "  - {name: a, scope: organization, unit: tokens, cap: 6}\n", 1, "names must differ; a is given"),
        (LIMIT.replace("organization", "tenant/gone"), 2, "'gone' is not declared in tenants; declared are: acme"),
        (LIMIT.replace("cap: 5", "cap: 5, cap: 6"), 2, "limits.0.cap: this key is there twice"),
    ],
)
def test_a_wrong_setting_is_said_with_its_line(tmp_path: Path, text: str, line: int, expected: str) -> None:
    (said,) = refusal(tmp_path, BASE + text)
    assert said.startswith(f"e.yaml:{BASE_LINES + line}: ")
    assert expected in said


def test_a_cycle_of_groups_is_said_of_every_group_that_is_in_it(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        BASE + "jurisdictions:\n  groups:\n    one: [two]\n    two: [six]\n    six: [one]\n    ten: [one, fr]\n",
    )
    assert [line.split(": ")[0] for line in said] == [f"e.yaml:{BASE_LINES + line}" for line in (3, 4, 5)]
    assert "one > two > six > one" in said[0]


def test_limits_that_differ_in_scope_unit_or_window_are_no_duplicates(tmp_path: Path) -> None:
    more = "".join(
        f"  - {{name: {name}, scope: {scope}, unit: {unit}, window: {window}, cap: 6}}\n"
        for name, scope, unit, window in (
            ("b", "tenant/acme", "usd", "day"),
            ("c", "organization", "tokens", "day"),
            ("d", "organization", "usd", "hour"),
        )
    )
    assert len(load(written(tmp_path, BASE + LIMIT + more)).limits) == 4


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        ("{input: -1}", "price.input: Input should be greater than or equal to 0"),
        ("{}", "a price of nothing is not a price"),
        ("{hour: 0}", "price.hour: Input should be greater than 0"),
        ("{hour: -2}", "price.hour: Input should be greater than"),
        ("{hour: 2, input_tokens_per_second: -1}", "price.input_tokens_per_second: Input should be greater than 0"),
        ("{input_tokens_per_second: 1}", "price.hour: this key is missing"),
        ("{hour: 2, input: 1}", "price.input: there is no such key"),
        ("5", "Input should be a valid dictionary"),
        ("{input: 1, currency: EUR}", "price.currency: there is no such key"),
    ],
)
def test_a_wrong_price_is_said_with_its_line(tmp_path: Path, price: str, expected: str) -> None:
    (said,) = refusal(tmp_path, PRICES % price)
    assert said.startswith("e.yaml:10: deployments.0.placements.0.price")
    assert expected in said


@pytest.mark.parametrize("score", ["1.1", "-0.1", ".nan"])
def test_a_score_outside_0_to_1_is_refused(tmp_path: Path, score: str) -> None:
    (said,) = refusal(tmp_path, BASE.replace("0.7", score))
    assert said.startswith("e.yaml:14: deployments.1.placements.0.quality_scores.code: Input should be")


@pytest.mark.parametrize("place", ["aws:eu-centrall-1", "atlantis", "us/xx", "eu"])
def test_a_node_that_is_nowhere_is_refused(tmp_path: Path, place: str) -> None:
    (said,) = refusal(tmp_path, BASE.replace("aws:us-east-1", place))
    assert said.startswith("e.yaml:4: nodes.1.place: ")
    assert place in said


def test_groups_of_ones_own_may_name_one_another_and_be_named_anywhere(tmp_path: Path) -> None:
    text = BASE.replace('"aws:us-east-1"', "home/us/va") + (
        "jurisdictions:\n  groups:\n    home: [dach, us/va, 'aws:eu-west-1']\n    dach: [de, at, ch]\n"
        "policies:\n  - {name: r, residency: {allow: [home], deny: [dach/at]}}\n"
    )
    tree = load(written(tmp_path, text)).jurisdiction_tree
    assert {"home", "dach"} <= tree.place("de").within


def test_a_file_that_is_no_mapping_or_no_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="expected keys and values at the top, found list"):
        load(written(tmp_path, "- 1\n"))
    with pytest.raises(RequestError, match=r"e\.yaml:2: not YAML: while parsing a flow node: expected"):
        load(written(tmp_path, "a: [\n"))


def test_norway_is_a_country(tmp_path: Path) -> None:
    text = (
        BASE.replace("place: eu/de}", "place: no}") + "policies:\n  - {name: r, residency: {allow: [no], deny: [se]}}\n"
    )
    settings = load(written(tmp_path, text))
    assert settings.nodes[0].place == "no"
    assert settings.policies[0].residency.allow == ["no"]
    assert load(written(tmp_path, BASE + "nats: {sync_always: yes}\n")).nats.sync_always
    assert load(written(tmp_path, BASE + "nats: {sync_always: true}\n")).nats.sync_always


def test_budgets_of_two_periods_may_follow_each_other(tmp_path: Path) -> None:
    first, second = "cap: 5, time_zone: Europe/Berlin", "cap: 6, time_zone: Europe/Berlin"
    text = (
        "limits:\n"
        f"  - {{name: a, scope: organization, unit: usd, {first}, end: 2099-07-01}}\n"
        f"  - {{name: b, scope: organization, unit: usd, {second}, start: 2099-07-01}}\n"
    )
    settings = load(written(tmp_path, BASE + text))
    one, other = resources.limits(settings)
    assert one.end_time == other.start_time
    assert one.end_time.ToJsonString() == "2099-06-30T22:00:00Z"
