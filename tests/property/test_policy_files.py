"""Any set of rules that is right: shown as a file, that file means the same set again, and its spelling is stable."""

import tempfile
from pathlib import Path

from google.protobuf import duration_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from enginehouse.router import Jurisdictions, residency
from enginehouse.router.regions import REGIONS
from enginehouse.services.policies import Catalog, canonical_set, policy_set_problems
from enginehouse.services.settings import load_policies, policy_text
from enginehouse.v1 import admin_pb2, common_pb2, router_pb2

TREE = Jurisdictions()
MODELS = ("small", "large", "org/Model-1.5:chat", "no", "1e3")
DEPLOYMENTS = {"d1": frozenset(MODELS), "1": frozenset(MODELS)}
ACME = "organizations/default/tenants/acme"
CATALOG = Catalog(TREE, DEPLOYMENTS, frozenset({ACME}))
PLACES = (
    "eu",
    "efta",
    "de",
    "no",
    "us/va",
    "jp/13",
    "EU/DE",
    "us/va/hall-3",
    "AWS:eu-central-1",
    *sorted(REGIONS)[::20],
)
CLASSES: tuple[str, ...] = ("public", "personal", "no", "null")

places = st.lists(st.sampled_from(PLACES), max_size=3, unique=True)
residencies = st.builds(router_pb2.Residency, allow=places, deny=places)
words = st.lists(st.sampled_from(("nvidia", "amd", "h200", "0", "true", "a b")), max_size=2, unique=True)
chip_classes = st.lists(st.sampled_from(common_pb2.ChipClass.values()[1:]), max_size=2, unique=True)
chips = st.lists(
    st.builds(
        admin_pb2.ChipRule,
        classes=chip_classes,
        vendors=words,
        models=words,
        memory_bytes_min=st.integers(0, 10**13),
        count_min=st.integers(0, 9),
    ).filter(lambda rule: rule != admin_pb2.ChipRule()),
    max_size=2,
)
models = st.lists(st.sampled_from(MODELS), max_size=2, unique=True)
weights = st.floats(0, 1e6)
policies = st.builds(
    admin_pb2.Policy,
    residency=st.none() | residencies.filter(lambda rule: rule != router_pb2.Residency()),
    chips_required=chips,
    chips_forbidden=chips,
    chips_preferred=chips,
    quality_floor=st.sampled_from(common_pb2.Quality.values()),
    quality_score_floor=st.floats(0, 1),
    task=st.sampled_from(("", "code", "no", "y")),
    price_nanousd_max=st.integers(0, 10**18),
    models=models,
    weights=st.none() | st.builds(admin_pb2.ScorerWeights, cost=weights.filter(bool), chip=weights),
    lane=st.sampled_from((common_pb2.LANE_UNSPECIFIED, common_pb2.LANE_DIRECT, common_pb2.LANE_ADAPTER)),
    on_tight_budget=st.sampled_from(admin_pb2.TightBudget.values()),
    wait=st.none()
    | st.sampled_from((0, 1, 1500, 30_000)).map(
        lambda ms: duration_pb2.Duration(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)
    ),
    routes=st.lists(
        st.builds(
            admin_pb2.Route,
            deployment=st.sampled_from([f"deployments/{one}" for one in DEPLOYMENTS]),
            weight=st.integers(1, 10**6),
        ),
        max_size=2,
        unique_by=lambda route: route.deployment,
    ),
)
PRINCIPALS = (ACME, f"{ACME}/projects/p", f"{ACME}/projects/1", f"{ACME}/projects/p/keys/k")
rules = st.builds(
    admin_pb2.PolicyRule,
    name=st.text(min_size=1, max_size=100).filter(lambda name: name.isprintable() and name.strip()),
    principals=st.lists(st.sampled_from(PRINCIPALS), unique=True).map(
        lambda names: sorted(names, key=PRINCIPALS.index)
    ),
    models=models,
    policy=st.none() | policies.filter(lambda policy: policy != admin_pb2.Policy()),
)


@st.composite
def policy_sets(draw: st.DrawFn) -> admin_pb2.PolicySet:
    classes = draw(st.dictionaries(st.sampled_from(CLASSES), residencies))
    drawn = draw(st.lists(rules, max_size=3, unique_by=lambda rule: rule.name))
    for rule in drawn:
        rule.data_class = draw(st.sampled_from(["", *sorted(classes)]))
    return admin_pb2.PolicySet(name="policies/default", rules=drawn, data_classes=classes)


def read(text: str) -> admin_pb2.PolicySet:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rules.yaml"
        file.write_text(text)
        return load_policies(file, CATALOG).message


@settings(max_examples=150, deadline=None)
@given(policy_sets())
def test_a_set_that_is_shown_and_applied_is_the_same_set(policy_set: admin_pb2.PolicySet) -> None:
    assert list(policy_set_problems(policy_set, CATALOG)) == []
    assert read(policy_text(policy_set)) == policy_set


@settings(max_examples=150, deadline=None)
@given(policy_sets())
def test_the_one_spelling_is_stable_and_means_the_same(policy_set: admin_pb2.PolicySet) -> None:
    spelled = canonical_set(policy_set, TREE)
    assert canonical_set(spelled, TREE) == spelled
    for name, rule in policy_set.data_classes.items():
        canonical = spelled.data_classes[name]
        assert residency(TREE, rule.allow, rule.deny) == residency(TREE, canonical.allow, canonical.deny)
        assert set(canonical.allow) == residency(TREE, rule.allow, ()).allow


labels = st.sampled_from(PLACES).filter(lambda label: label not in ("eu", "efta"))


@settings(max_examples=300, deadline=None)
@given(labels, places, places, places)
def test_one_more_denied_place_never_lets_anything_in(
    label: str, allow: list[str], deny: list[str], more: list[str]
) -> None:
    place = TREE.place(label)
    if residency(TREE, allow, deny + more).permits(place):
        assert residency(TREE, allow, deny).permits(place)
        assert residency(TREE, [], more).permits(place)


@given(labels)
def test_a_place_is_kept_out_by_all_that_contains_it_and_all_that_is_in_it(label: str) -> None:
    place = TREE.place(label)
    for around in place.within | place.perhaps_within:
        assert not residency(TREE, [], [around]).permits(place)
