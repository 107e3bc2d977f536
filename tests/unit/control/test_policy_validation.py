"""What a policy and a set of rules must be, and the one spelling of both."""

from collections.abc import Callable

import pytest
from google.protobuf import duration_pb2

from enginehouse.router import Jurisdictions
from enginehouse.services.policies import (
    Catalog,
    InvalidPolicyError,
    Problem,
    canonical_policy,
    canonical_set,
    policy_problems,
    policy_set_problems,
    read_problem,
)
from enginehouse.v1 import admin_pb2, common_pb2, router_pb2

ACME = "organizations/default/tenants/acme"
CATALOG = Catalog(Jurisdictions(), {"d1": frozenset({"smollm2", "small"}), "d2": frozenset({"big"})}, frozenset({ACME}))


def policy() -> admin_pb2.Policy:
    """One that uses everything."""
    return admin_pb2.Policy(
        residency=router_pb2.Residency(allow=["eu", "eu/de", "us/va", "aws:eu-central-1", "de/he/zone-1"], deny=["fr"]),
        chips_required=[admin_pb2.ChipRule(classes=[common_pb2.CHIP_CLASS_GPU], vendors=["nvidia"], models=["h200"])],
        chips_forbidden=[admin_pb2.ChipRule(classes=[common_pb2.CHIP_CLASS_TPU])],
        chips_preferred=[admin_pb2.ChipRule(memory_bytes_min=80 << 30, count_min=2)],
        quality_floor=common_pb2.QUALITY_HIGH,
        quality_score_floor=0.5,
        task="code",
        price_nanousd_max=5,
        models=["smollm2", "big"],
        weights=admin_pb2.ScorerWeights(cost=0.5),
        lane=common_pb2.LANE_DIRECT,
        on_tight_budget=admin_pb2.TIGHT_BUDGET_WAIT,
        wait=duration_pb2.Duration(seconds=30),
        routes=[admin_pb2.Route(deployment="deployments/d1", weight=1)],
    )


def rules() -> admin_pb2.PolicySet:
    """A set that uses everything."""
    rule = admin_pb2.PolicyRule(
        name="Acme's data",
        principals=[ACME, f"{ACME}/projects/not-yet", f"{ACME}/projects/not-yet/keys/k"],
        models=["small"],
        data_class="personal",
        policy=policy(),
    )
    return admin_pb2.PolicySet(rules=[rule], data_classes={"personal": router_pb2.Residency(allow=["eu"])})


def test_a_set_that_names_what_exists_has_no_problem() -> None:
    assert list(policy_set_problems(rules(), CATALOG)) == []
    assert list(policy_set_problems(admin_pb2.PolicySet(), CATALOG)) == []


def test_what_is_not_known_here_is_not_looked_at() -> None:
    assert list(policy_set_problems(rules(), Catalog(Jurisdictions()))) == []


@pytest.mark.parametrize(
    ("change", "where", "message"),
    [
        (lambda p: p.residency.allow.append("atlantis"), "p.residency.allow[5]", "'atlantis' is neither a country"),
        (lambda p: p.residency.deny.append("us/xx"), "p.residency.deny[1]", "'xx' is not a subdivision of 'us'"),
        (lambda p: p.residency.deny.append("aws:eu-centrall-1"), "p.residency.deny[1]", "aws:eu-central-1"),
        (lambda p: p.residency.deny.append(""), "p.residency.deny[1]", "expected segments"),
        (lambda p: p.chips_required[0].classes.append(99), "p.chips_required[0].classes[1]", "99 is unknown"),
        (lambda p: p.chips_required[0].vendors.append("NVIDIA"), "p.chips_required[0].vendors[1]", "case: 'nvidia'"),
        (lambda p: p.chips_required[0].models.append(""), "p.chips_required[0].models[1]", "lower case"),
        (lambda p: p.chips_forbidden.add(), "p.chips_forbidden[1]", "names no chip"),
        (lambda p: setattr(p.chips_preferred[0], "count_min", -1), "p.chips_preferred[0].count_min", "-1 is negative"),
        (lambda p: setattr(p, "quality_floor", 99), "p.quality_floor", "QUALITY_LOW, QUALITY_STANDARD, QUALITY_HIGH"),
        (lambda p: setattr(p, "quality_score_floor", 1.01), "p.quality_score_floor", "from 0 to 1"),
        (lambda p: setattr(p, "quality_score_floor", float("nan")), "p.quality_score_floor", "from 0 to 1"),
        (lambda p: setattr(p, "task", "Code!"), "p.task", "'Code!' is no task class"),
        (lambda p: setattr(p, "price_nanousd_max", -1), "p.price_nanousd_max", "-1; a price is not negative"),
        (lambda p: p.models.append("smolm2"), "p.models[2]", "offers 'smolm2'; there is smollm2,"),
        (lambda p: p.models.append("with space"), "p.models[2]", "not a model name"),
        (lambda p: setattr(p.weights, "wait", -0.1), "p.weights.wait", "at least 0"),
        (lambda p: setattr(p.weights, "chip", float("inf")), "p.weights.chip", "at least 0"),
        (lambda p: setattr(p, "lane", 99), "p.lane", "99 is unknown"),
        (lambda p: setattr(p, "on_tight_budget", 99), "p.on_tight_budget", "TIGHT_BUDGET_CLAMP"),
        (lambda p: setattr(p.wait, "nanos", 1000000), "p.wait", "30.001 seconds"),
        (lambda p: setattr(p.wait, "seconds", -1), "p.wait", "-1 seconds"),
        (lambda p: p.routes.add(deployment="d2", weight=1), "p.routes[1].deployment", "'deployments/*'"),
        (lambda p: p.routes.add(deployment="deployments/d3", weight=1), "p.routes[1].deployment", "there is d1, d2"),
        (
            lambda p: p.routes.add(deployment="deployments/d1", weight=1),
            "p.routes[1].deployment",
            "has a route already",
        ),
        (lambda p: p.routes.add(deployment="deployments/d2"), "p.routes[1].weight", "0; a weight is from 1"),
    ],
)
def test_a_wrong_policy_is_told_by_field_value_and_what_was_expected(
    change: Callable[[admin_pb2.Policy], object], where: str, message: str
) -> None:
    wrong = policy()
    change(wrong)
    (problem,) = policy_problems(wrong, CATALOG, ("p",))
    assert str(problem).startswith(where + ": ")
    assert message in str(problem)


@pytest.mark.parametrize(
    ("change", "where", "message"),
    [
        (lambda s: s.rules.append(s.rules[0]), "rules[1].name", "is the name of rule 1 already"),
        (lambda s: setattr(s.rules[0], "name", " "), "rules[0].name", "a rule has a name"),
        (lambda s: setattr(s.rules[0], "name", "\x1b[31m"), "rules[0].name", "printable"),
        (lambda s: s.rules[0].principals.append("acme"), "rules[0].principals[3]", "no name of a tenant"),
        (lambda s: s.rules[0].principals.append("organizations/default"), "rules[0].principals[3]", "no name of a"),
        (lambda s: s.rules[0].principals.append(ACME + "e/projects/p"), "rules[0].principals[3]", "there is acme"),
        (lambda s: s.rules[0].models.append("gone"), "rules[0].models[1]", "no deployment offers 'gone'"),
        (lambda s: setattr(s.rules[0], "data_class", "secret"), "rules[0].data_class", "declared are: personal"),
        (lambda s: s.data_classes["Personal"].SetInParent(), "data_classes", "'Personal' is no name of a class"),
        (lambda s: s.data_classes["secret"].allow.append("xx"), "data_classes.secret.allow[0]", "'xx' is neither"),
        (lambda s: s.rules[0].policy.residency.deny.append("xx"), "rules[0].policy.residency.deny[1]", "'xx'"),
        (
            lambda s: s.rules[0].policy.routes.add(deployment="deployments/d2", weight=1),
            "rules[0].policy.routes[1].deployment",
            "offers big, and the rule is about small",
        ),
        (lambda s: s.rules.extend([admin_pb2.PolicyRule()] * 1000), "rules", "there are 1001; at most 1000"),
    ],
)
def test_a_wrong_set_is_told_by_rule_value_and_what_was_expected(
    change: Callable[[admin_pb2.PolicySet], object], where: str, message: str
) -> None:
    wrong = rules()
    change(wrong)
    (problem,) = policy_set_problems(wrong, CATALOG)
    assert str(problem).startswith(where + ": ")
    assert message in str(problem)


def test_everything_that_is_wrong_is_told_at_once_up_to_what_an_answer_holds() -> None:
    wrong = rules()
    wrong.rules[0].policy.models.extend(f"gone-{number}" for number in range(30))
    problems = list(policy_set_problems(wrong, CATALOG))
    assert len(problems) == 30
    error = InvalidPolicyError.of("policies/default", problems)
    assert len(error.lines) == 11
    assert error.lines[-1] == "and 20 more"
    assert len(error.message) < 3000


def test_a_problem_is_read_as_it_was_written() -> None:
    problem = Problem(("rules", 12, "policy", "data_classes", "top-secret", "allow", 0), "'x': is wrong")
    assert read_problem(str(problem)) == problem
    assert read_problem("and 3 more") is None
    assert read_problem("policies/default has changed: its etag is 'a'") is None


def test_jurisdictions_are_stored_in_the_spelling_that_rules_are_compared_in() -> None:
    written = admin_pb2.Policy(residency=router_pb2.Residency(allow=["EU", "eu"], deny=["eu/de", "us/va"]))
    spelled = canonical_policy(written, Jurisdictions())
    assert list(spelled.residency.allow) == ["eu"]
    assert list(spelled.residency.deny) == ["de", "us/va"]
    whole = admin_pb2.PolicySet(
        rules=[admin_pb2.PolicyRule(name="r", policy=written), admin_pb2.PolicyRule(name="s")],
        data_classes={"open": router_pb2.Residency(), "personal": written.residency},
        etag="not content",
    )
    canonical = canonical_set(whole, Jurisdictions())
    assert canonical.rules[0].policy == spelled
    assert not canonical.rules[1].HasField("policy")
    assert canonical.data_classes["personal"] == spelled.residency
    assert set(canonical.data_classes) == {"open", "personal"}
    assert not canonical.etag
