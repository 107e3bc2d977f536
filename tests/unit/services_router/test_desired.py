"""The desired state, read into rules."""

from collections.abc import Mapping

from google.protobuf import duration_pb2
from google.protobuf.message import Message

from enginehouse.router import (
    NOTHING_ALLOWED,
    NOWHERE,
    ChipRule,
    Policy,
    Principal,
    Residency,
    Route,
    TightBudget,
    View,
    Weights,
)
from enginehouse.services.router.desired import Desired, read_desired
from enginehouse.services.router.models import list_models
from enginehouse.services.router.resources import WAIT_MS_DEFAULT, policy_from_message
from enginehouse.v1 import admin_pb2, common_pb2, router_pb2
from tests.unit.services_router.build import JURISDICTIONS, MODEL, PRINCIPAL, replica, view

GPU = common_pb2.CHIP_CLASS_GPU
NAMES = frozenset({MODEL})
TENANT = admin_pb2.Tenant(
    name=PRINCIPAL.tenant_name, policy=admin_pb2.Policy(residency=router_pb2.Residency(allow=["eu"]), models=[MODEL])
)
RULES = admin_pb2.PolicySet(
    rules=[
        admin_pb2.PolicyRule(name="all", policy=admin_pb2.Policy(residency=router_pb2.Residency(deny=["fr"]))),
        admin_pb2.PolicyRule(
            name="personal",
            principals=[f"{PRINCIPAL.tenant_name}/projects/p"],
            models=[MODEL],
            data_class="personal",
        ),
        admin_pb2.PolicyRule(name="others", principals=["organizations/default/tenants/other"], data_class="secret"),
    ],
    data_classes={"personal": router_pb2.Residency(allow=["de"])},
)


def read(entries: Mapping[str, Message | bytes]) -> Desired:
    return read_desired(
        {key: one if isinstance(one, bytes) else one.SerializeToString() for key, one in entries.items()},
        JURISDICTIONS,
    )


def test_a_tenants_policy_and_the_rules_hold_together() -> None:
    desired = read({"tenants.acme": TENANT, "policies.default": RULES})
    policy = desired.policies.policy(PRINCIPAL, NAMES)
    assert policy.residency == (
        Residency(allow=frozenset({"eu"})),
        Residency(deny=frozenset({"fr"})),
        Residency(allow=frozenset({"de"})),
    )
    assert policy.models == NAMES
    assert [rule.name for rule in desired.policies.rules] == ["tenant acme", "all", "personal", "others"]


def test_a_tenant_that_is_not_declared_is_allowed_nothing() -> None:
    desired = read({"tenants.acme": TENANT, "policies.default": RULES})
    stranger = Principal("default", "acme2", "p", "k")
    assert desired.policies.policy(stranger, NAMES) == NOTHING_ALLOWED
    assert Desired().policies.policy(PRINCIPAL, NAMES) == NOTHING_ALLOWED


def test_rules_that_cannot_be_read_allow_nobody_anything() -> None:
    desired = read({"tenants.acme": TENANT, "policies.default": b"\xff\xff"})
    assert desired.policies.policy(PRINCIPAL, NAMES) == NOTHING_ALLOWED


def test_an_entry_that_cannot_be_read_takes_nothing_else_with_it() -> None:
    desired = read({"tenants.acme": TENANT, "deployments.d": b"\xff\xff", "limits.l": b"\xff"})
    assert desired.policies.policy(PRINCIPAL, NAMES).models == NAMES
    assert not desired.deployments


def test_a_residency_rule_that_cannot_be_read_permits_no_place() -> None:
    broken = admin_pb2.Policy(residency=router_pb2.Residency(deny=["atlantis"]))
    assert policy_from_message(broken, JURISDICTIONS).residency == (NOWHERE,)
    assert not any(NOWHERE.permits(JURISDICTIONS.place(label)) for label in ("eu/de", "us/va", "ch"))


def test_the_version_follows_every_entry() -> None:
    versions = {
        read(entries).version
        for entries in (
            {"tenants.acme": TENANT},
            {"tenants.acme": TENANT, "policies.default": RULES},
            {"policies.default": RULES},
        )
    }
    assert len(versions) == 3


def test_every_field_of_a_policy_is_read() -> None:
    policy = policy_from_message(
        admin_pb2.Policy(
            residency=router_pb2.Residency(allow=["eu/de"]),
            chips_required=[admin_pb2.ChipRule(classes=[GPU], memory_bytes_min=5, count_min=2)],
            chips_forbidden=[admin_pb2.ChipRule(vendors=["amd"])],
            chips_preferred=[admin_pb2.ChipRule(models=["h200"])],
            quality_floor=common_pb2.QUALITY_HIGH,
            price_nanousd_max=7,
            models=[MODEL],
            weights=admin_pb2.ScorerWeights(cost=2, wait=1),
            lane=common_pb2.LANE_ADAPTER,
            quality_score_floor=0.5,
            task="code",
            on_tight_budget=admin_pb2.TIGHT_BUDGET_WAIT,
            wait=duration_pb2.Duration(nanos=500_000_000),
            routes=[admin_pb2.Route(deployment="deployments/d", weight=3)],
        ),
        JURISDICTIONS,
    )
    assert policy == Policy(
        residency=(Residency(allow=frozenset({"de"})),),
        chips_required=(ChipRule(classes=frozenset({GPU}), memory_bytes_min=5, count_min=2),),
        chips_forbidden=(ChipRule(vendors=frozenset({"amd"})),),
        chips_preferred=(ChipRule(models=frozenset({"h200"})),),
        quality_floor=common_pb2.QUALITY_HIGH,
        price_nanousd_max=7,
        models=NAMES,
        weights=Weights(cost=2, quality=0, wait=1, affinity=0, chip=0),
        lane=common_pb2.LANE_ADAPTER,
        quality_score_floor=0.5,
        task="code",
        on_tight_budget=TightBudget.WAIT,
        wait_ms=500,
        routes=(Route("d", 3),),
    )


def test_what_a_policy_leaves_out_adds_nothing() -> None:
    assert policy_from_message(admin_pb2.Policy(), JURISDICTIONS) == Policy()


def test_a_wait_without_a_length_has_the_default() -> None:
    waiting = admin_pb2.Policy(on_tight_budget=admin_pb2.TIGHT_BUDGET_WAIT)
    assert policy_from_message(waiting, JURISDICTIONS).wait_ms == WAIT_MS_DEFAULT


def listed(of: View, key_name: str) -> list[object]:
    return [one["id"] for one in list_models(of, key_name, 0)]


def test_models_are_listed_for_those_who_may_ask_for_them() -> None:
    known = view([replica()])
    stranger = Principal("default", "acme2", "p", "k")
    assert listed(known, PRINCIPAL.key_name) == [MODEL]
    assert listed(known, stranger.key_name) == []
    assert listed(view([replica()], Policy(models=frozenset({"else"}))), PRINCIPAL.key_name) == []
