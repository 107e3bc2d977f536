"""Policies in the settings file: what they become, and what is said of those that are wrong."""

from pathlib import Path

import pytest
from google.protobuf import duration_pb2

from enginehouse.contract import RequestError
from enginehouse.router import Jurisdictions
from enginehouse.services.local.ports import write_settings
from enginehouse.services.policies import Catalog
from enginehouse.services.settings import catalog_of, load, load_policies, policy_text, resources
from enginehouse.v1 import admin_pb2, common_pb2, router_pb2
from tests.unit.settings.support import BASE, BASE_LINES, refusal, written

RULES = """\
policies:
  - name: Acme's personal data
    when: {tenants: [acme], projects: [acme/chat], keys: [acme/chat/k1], models: [small, default]}
    data_class: personal
    residency: {allow: [EU], deny: [eu/fr, "aws:eu-west-1"]}
    chips:
      required: [gpu, {vendor: nvidia, model: [h100, h200], memory_gib: 79.5, count: 2}]
      forbidden: [{class: [tpu, lpu]}]
      preferred: [cpu]
    quality: {floor: standard, task: code, score: 0.5}
    max_price: 0.002
    models: [small]
    weights: {cost: 2, wait: 0.5}
    lane: direct
    on_tight_budget: wait
    wait_s: 1.5
    routes: [{deployment: small, weight: 3}]
  - name: nothing at all
data_classes:
  public: {}
  personal: {allow: [eu]}
"""
NVIDIA = admin_pb2.ChipRule(
    vendors=["nvidia"], models=["h100", "h200"], memory_bytes_min=round(79.5 * (1 << 30)), count_min=2
)


def test_rules_become_a_set_with_everything_that_is_written(tmp_path: Path) -> None:
    made = resources.policy_set(load(written(tmp_path, BASE + RULES)))
    assert made is not None
    assert made.name == "policies/default"
    assert dict(made.data_classes) == {"public": router_pb2.Residency(), "personal": router_pb2.Residency(allow=["eu"])}
    acme = "organizations/default/tenants/acme"
    policy = admin_pb2.Policy(
        residency=router_pb2.Residency(allow=["EU"], deny=["eu/fr", "aws:eu-west-1"]),
        chips_required=[admin_pb2.ChipRule(classes=[common_pb2.CHIP_CLASS_GPU]), NVIDIA],
        chips_forbidden=[admin_pb2.ChipRule(classes=[common_pb2.CHIP_CLASS_TPU, common_pb2.CHIP_CLASS_LPU])],
        chips_preferred=[admin_pb2.ChipRule(classes=[common_pb2.CHIP_CLASS_CPU])],
        quality_floor=common_pb2.QUALITY_STANDARD,
        quality_score_floor=0.5,
        task="code",
        price_nanousd_max=2_000_000,
        models=["small"],
        weights=admin_pb2.ScorerWeights(cost=2, wait=0.5),
        lane=common_pb2.LANE_DIRECT,
        on_tight_budget=admin_pb2.TIGHT_BUDGET_WAIT,
        wait=duration_pb2.Duration(seconds=1, nanos=500_000_000),
        routes=[admin_pb2.Route(deployment="deployments/small", weight=3)],
    )
    first = admin_pb2.PolicyRule(
        name="Acme's personal data",
        principals=[acme, f"{acme}/projects/chat", f"{acme}/projects/chat/keys/k1"],
        models=["small", "default"],
        data_class="personal",
        policy=policy,
    )
    assert list(made.rules) == [first, admin_pb2.PolicyRule(name="nothing at all")]


def test_a_tenants_own_policy_has_the_same_shape(tmp_path: Path) -> None:
    body = RULES[RULES.index("    residency:") : RULES.index("  - name: nothing")]
    settings = load(written(tmp_path, BASE + body + RULES))
    (tenant,) = resources.tenants(settings)
    made = resources.policy_set(settings)
    assert made is not None
    assert tenant.policy == made.rules[0].policy


def test_a_file_without_rules_says_nothing_of_them(tmp_path: Path) -> None:
    assert resources.policy_set(load(written(tmp_path, BASE))) is None


def test_settings_that_are_written_for_another_process_are_read_as_the_same(tmp_path: Path) -> None:
    settings = load(written(tmp_path, BASE + RULES))
    copy = tmp_path / "copy" / "e.yaml"
    write_settings(settings, copy)
    assert load(copy).model_dump() == settings.model_dump()
    assert resources.policy_set(load(copy)) == resources.policy_set(settings)


def test_a_set_is_shown_as_a_file_that_means_the_same(tmp_path: Path) -> None:
    settings = load(written(tmp_path, BASE + RULES))
    made = load_policies(written(tmp_path, RULES), catalog_of(settings)).message
    assert made == resources.policy_set(settings)
    again = load_policies(written(tmp_path, policy_text(made)), catalog_of(settings)).message
    assert again == made


def test_an_exact_price_survives_being_shown(tmp_path: Path) -> None:
    made = admin_pb2.PolicySet(
        name="policies/default",
        rules=[admin_pb2.PolicyRule(name="r", policy=admin_pb2.Policy(price_nanousd_max=123_456_789_012_345_678))],
    )
    assert load_policies(written(tmp_path, policy_text(made)), Catalog(Jurisdictions())).message == made


def test_a_wait_of_no_time_is_not_the_default_and_survives_being_shown(tmp_path: Path) -> None:
    policy = admin_pb2.Policy(on_tight_budget=admin_pb2.TIGHT_BUDGET_WAIT, wait=duration_pb2.Duration())
    made = admin_pb2.PolicySet(name="policies/default", rules=[admin_pb2.PolicyRule(name="r", policy=policy)])
    assert load_policies(written(tmp_path, policy_text(made)), Catalog(Jurisdictions())).message == made


def test_an_hourly_price_is_carried_as_it_is_with_the_rates_that_are_declared(tmp_path: Path) -> None:
    _, large = resources.deployments(load(written(tmp_path, BASE)))
    (placement,) = large.placements
    assert placement.price == common_pb2.Price(hour_nanousd=2_500_000_000, output_tokens_per_second=100)
    assert dict(placement.quality_scores) == {"code": 0.7}


RULE = "policies:\n  - name: r\n"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (RULE + "    residency: {allow: [atlantis]}\n", 3, "policies.0.residency.allow.0: jurisdiction 'atlantis'"),
        (RULE + "    residency:\n      deny:\n        - eu\n        - us/xx\n", 6, "policies.0.residency.deny.1: "),
        (RULE + "    residency: {deny: ['aws:eu-centrall-1']}\n", 3, "near it: aws:eu-central-1"),
        (RULE + "    residensy: {allow: [eu]}\n", 3, "policies.0.residensy: there is no such key"),
        (RULE + "    chips: {required: [gpus]}\n", 3, "policies.0.chips.required.0.class.0: Input should be 'gpu'"),
        (RULE + "    chips: {forbidden: [{vendor: NVIDIA}]}\n", 3, "forbidden.0.vendor.0: String should match"),
        (RULE + "    chips: {forbidden: [{}]}\n", 3, "names no chip"),
        (RULE + "    chips: {preferred: [{class: gpu, memory_gib: 0}]}\n", 3, "greater than 0; found 0"),
        (RULE + "    models: [smal]\n", 3, "policies.0.models.0: no deployment offers 'smal'; there is small"),
        (RULE + "    when:\n      models:\n        - gone\n", 5, "policies.0.when.models.0: no deployment offers"),
        (RULE + "    when:\n      tenants: [acme, acmee]\n", 4, "policies.0.when.tenants.1: there is no tenant"),
        (RULE + "    when:\n      projects: [acmee/p]\n", 4, "policies.0.when.projects.0: there is no tenant"),
        (RULE + "    when:\n      keys:\n        - gone/p/k\n", 5, "policies.0.when.keys.0: there is no tenant"),
        (RULE + "    when:\n      keys: [acme/p]\n", 4, "policies.0.when.keys.0: String should match"),
        (
            RULE + "    routes:\n      - {deployment: tiny, weight: 1}\n",
            4,
            "routes.0.deployment: there is no deployment",
        ),
        (RULE + "    routes:\n      - {deployment: small, weight: 0}\n", 4, "routes.0.weight: Input should be greater"),
        (
            RULE + "    when: {models: [large]}\n    routes:\n      - {deployment: small, weight: 1}\n",
            5,
            "'deployments/small' offers default, small, and the rule is about large",
        ),
        (RULE + "    data_class: secret\n", 3, "policies.0.data_class: 'secret' is not a declared class"),
        (RULE + "  - name: r\n", 3, "policies.1.name: 'r' is the name of rule 1 already"),
        (RULE + "    quality: {score: 1.5}\n", 3, "policies.0.quality.score: Input should be less than or equal to 1"),
        (RULE + "    quality: {floor: best}\n", 3, "policies.0.quality.floor: Input should be 'low', 'standard' or"),
        (RULE + "    on_tight_budget: maybe\n", 3, "on_tight_budget: Input should be 'refuse', 'clamp' or 'wait'"),
        (RULE + "    wait_s: 31\n", 3, "policies.0.wait_s: Input should be less than or equal to 30; found 31"),
        (RULE + "    wait_s: -1\n", 3, "policies.0.wait_s: Input should be greater than or equal to 0"),
        (RULE + "    max_price: 0\n", 3, "policies.0.max_price: Input should be greater than 0"),
        (RULE + "    max_price: -0.1\n", 3, "policies.0.max_price: Input should be greater than"),
        (RULE + "    weights: {cost: .nan}\n", 3, "policies.0.weights.cost"),
        (RULE + "    lane: fast\n", 3, "policies.0.lane: Input should be 'direct' or 'adapter'"),
        ("policies:\n  - residency: {allow: [eu]}\n", 2, "policies.0.name: this key is missing"),
        ("data_classes:\n  personal:\n    allow: [xx]\n", 3, "data_classes.personal.allow.0: jurisdiction 'xx'"),
        ("data_classes:\n  Personal: {}\n", 2, "data_classes.Personal: String should match"),
        ("data_classes:\n  a: {}\n  b: {}\n  a: {allow: [eu]}\n", 4, "data_classes.a: this key is there twice"),
        ("policies: [{name: r, name: s}]\n", 1, "policies.0.name: this key is there twice"),
    ],
)
def test_a_wrong_rule_is_refused_with_line_key_value_and_what_was_expected(
    tmp_path: Path, text: str, line: int, expected: str
) -> None:
    (said,) = refusal(tmp_path, BASE + text)
    assert said.startswith(f"e.yaml:{BASE_LINES + line}: ")
    assert expected in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("    residency: {deny: [xx]}\n", "tenants.0.residency.deny.0: jurisdiction 'xx'"),
        ("    models: [gone]\n", "tenants.0.models.0: no deployment offers 'gone'"),
        ("    routes: [{deployment: gone, weight: 1}]\n", "tenants.0.routes.0.deployment: there is no deployment"),
        ("    when: {tenants: [acme]}\n", "tenants.0.when: there is no such key"),
        ("    data_class: personal\n", "tenants.0.data_class: there is no such key"),
    ],
)
def test_a_tenants_wrong_policy_is_refused_likewise(tmp_path: Path, text: str, expected: str) -> None:
    (said,) = refusal(tmp_path, BASE + text)
    assert said.startswith(f"e.yaml:{BASE_LINES + 1}: {expected}")


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, BASE + RULE + "    models: [gone]\n    residency: {allow: [xx], deny: [yy]}\n")
    assert len(said) == 3


def test_a_file_of_rules_holds_nothing_else_and_is_refused_by_line(tmp_path: Path) -> None:
    file = written(tmp_path, RULE + "    residency: {allow: [xx]}\n")
    with pytest.raises(RequestError, match=r"e\.yaml:3: policies\.0\.residency\.allow\.0: jurisdiction 'xx'"):
        load_policies(file, Catalog(Jurisdictions()))
    with pytest.raises(RequestError, match=r"e\.yaml:1: polices: there is no such key"):
        load_policies(written(tmp_path, "polices: []\n"), Catalog(Jurisdictions()))
    with pytest.raises(RequestError, match="cannot be read"):
        load_policies(tmp_path / "none.yaml", Catalog(Jurisdictions()))


def test_whole_settings_are_a_file_of_rules_too(tmp_path: Path) -> None:
    made = load_policies(written(tmp_path, BASE + RULES), Catalog(Jurisdictions())).message
    assert len(made.rules) == 2


def test_what_control_finds_wrong_is_said_with_the_line_of_the_file(tmp_path: Path) -> None:
    read = load_policies(written(tmp_path, RULES), Catalog(Jurisdictions()))
    problems = [
        "rules[0].principals[2]: there is no tenant",
        "rules[0].policy.chips_required[1].vendors[0]: is wrong",
        "rules[0].policy.price_nanousd_max: is wrong",
        "data_classes.personal.allow[0]: is wrong",
        "and 3 more",
    ]
    said = [line.replace(f"{tmp_path}/", "") for line in read.located("\n".join(problems))]
    assert said == [
        "e.yaml:3: policies.0.when.keys.0: there is no tenant",
        "e.yaml:7: policies.0.chips.required.1.vendor.0: is wrong",
        "e.yaml:11: policies.0.max_price: is wrong",
        "e.yaml:21: data_classes.personal.allow.0: is wrong",
        "and 3 more",
    ]
