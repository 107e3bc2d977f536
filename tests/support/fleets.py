"""Random fleets, policies and requests for property tests."""

from collections.abc import Mapping

from hypothesis import strategies as st

from enginehouse.router import (
    Capabilities,
    Chip,
    ChipRule,
    Hints,
    Jurisdictions,
    Load,
    Moment,
    Policy,
    PolicyRule,
    PolicySet,
    Price,
    Principal,
    Replica,
    Request,
    Residency,
    Route,
    TightBudget,
    View,
    When,
    by_deployment,
)
from enginehouse.router.limits import IN_FLIGHT, REQUESTS, TOKENS, USD, Limit
from enginehouse.v1 import common_pb2, ledger_pb2

MODEL = "m"
PRINCIPAL = Principal("default", "acme", "p", "k")
JURISDICTIONS = Jurisdictions()
PLACES = ("eu/de", "de/be", "fr", "us/va", "us", "ch", "no", "gb")
NAMES = ("eu", "eea", "efta", "de", "de/be", "fr", "us", "us/va", "ch", "gb")
CHIPS = (common_pb2.CHIP_CLASS_GPU, common_pb2.CHIP_CLASS_TPU, common_pb2.CHIP_CLASS_CPU)
VENDORS = ("nvidia", "amd")
QUALITIES = (common_pb2.QUALITY_LOW, common_pb2.QUALITY_STANDARD, common_pb2.QUALITY_HIGH)
FEATURES = (common_pb2.FEATURE_STREAM, common_pb2.FEATURE_TOOLS, common_pb2.FEATURE_VISION)

_names = st.frozensets(st.sampled_from(NAMES), max_size=3)
rules = st.builds(Residency, allow=_names, deny=_names)
places = st.one_of(st.none(), st.sampled_from(PLACES).map(JURISDICTIONS.place))
prices = st.builds(
    Price,
    st.integers(1, 10**10),
    st.integers(1, 10**10),
    st.integers(1, 10**10),
    st.integers(0, 10**6),
)
capabilities = st.builds(
    Capabilities,
    operations=st.just(frozenset({common_pb2.OPERATION_CHAT})),
    features=st.frozensets(st.sampled_from(FEATURES)),
    direct_dialects=st.frozensets(st.sampled_from((common_pb2.DIALECT_OPENAI, common_pb2.DIALECT_ANTHROPIC))),
    context_tokens_max=st.sampled_from((512, 4096)),
    output_tokens_max=st.sampled_from((64, 256)),
    template_tokens=st.integers(0, 40),
    message_tokens=st.integers(0, 8),
)
_replica_fields = st.fixed_dictionaries(
    {
        "deployment": st.sampled_from(("d1", "d2")),
        "place": places,
        "chip": st.builds(
            Chip,
            st.sampled_from(CHIPS),
            st.sampled_from(VENDORS),
            memory_bytes=st.sampled_from((0, 80 << 30)),
            count=st.integers(1, 4),
        ),
        "capabilities": capabilities,
        "price": st.one_of(st.none(), prices),
        "quality": st.sampled_from(QUALITIES),
        "quality_scores": st.sampled_from(((), (("code", 0.4),), (("code", 0.9),))),
        "tenants": st.sampled_from((frozenset(), frozenset({PRINCIPAL.tenant_name}), frozenset({"other"}))),
        "forced_lane": st.sampled_from((common_pb2.LANE_UNSPECIFIED, common_pb2.LANE_ADAPTER)),
        "in_flight_max": st.integers(1, 3),
        "unavailable": st.sampled_from(("", "", "is loading")),
    }
)


def _replica(number: int, fields: Mapping[str, object]) -> Replica:
    node = f"n{number % 3}"
    return Replica(
        id=f"r{number}",
        model=MODEL,
        node=node,
        address=f"127.0.0.1:{9000 + number}",
        node_address=f"127.0.0.1:{8000 + number % 3}",
        served_model="served",
        **fields,  # type: ignore[arg-type]
    )


fleets = st.lists(_replica_fields, min_size=0, max_size=8).map(
    lambda fields: tuple(_replica(number, one) for number, one in enumerate(fields))
)
chip_rules = st.builds(
    ChipRule,
    classes=st.frozensets(st.sampled_from(CHIPS), max_size=2),
    vendors=st.frozensets(st.sampled_from(VENDORS), max_size=1),
    memory_bytes_min=st.sampled_from((0, 40 << 30)),
    count_min=st.sampled_from((0, 2)),
)
one_class = st.frozensets(st.sampled_from(CHIPS), min_size=1, max_size=1)
policies = st.builds(
    Policy,
    residency=st.lists(rules, max_size=2).map(tuple),
    chips_required=st.lists(chip_rules, max_size=1).map(tuple),
    chips_forbidden=st.lists(st.builds(ChipRule, classes=one_class), max_size=1).map(tuple),
    chips_preferred=st.lists(chip_rules, max_size=1).map(tuple),
    quality_floor=st.sampled_from((common_pb2.QUALITY_UNSPECIFIED, *QUALITIES)),
    quality_score_floor=st.sampled_from((0.0, 0.0, 0.5)),
    task=st.sampled_from(("", "code")),
    price_nanousd_max=st.one_of(st.none(), st.integers(0, 10**8)),
    models=st.sampled_from((None, None, frozenset({MODEL}), frozenset({"another"}))),
    on_tight_budget=st.sampled_from((None, TightBudget.CLAMP)),
    routes=st.sampled_from(((), (), (Route("d1", 9), Route("d2", 1)), (Route("d2", 1),))),
)
principals = st.sampled_from(
    (PRINCIPAL.tenant_name, f"{PRINCIPAL.tenant_name}/projects/p", "organizations/default", "organizations/else")
)
policy_sets = st.builds(
    PolicySet,
    rules=st.lists(
        st.builds(
            PolicyRule,
            name=st.just("r"),
            when=st.builds(
                When,
                principals=st.frozensets(principals, max_size=1),
                models=st.sampled_from((frozenset(), frozenset({MODEL}), frozenset({"another"}))),
            ),
            policy=policies,
            data_class=st.sampled_from(("", "", "personal", "undeclared")),
        ),
        max_size=3,
    ).map(tuple),
    data_classes=st.fixed_dictionaries({"personal": rules}),
    tenants=st.just(frozenset({PRINCIPAL.tenant_name})),
)
hints = st.builds(
    Hints,
    residency=st.frozensets(st.sampled_from(NAMES), max_size=2),
    chip=st.sampled_from((common_pb2.CHIP_CLASS_UNSPECIFIED, *CHIPS)),
    quality=st.sampled_from((common_pb2.QUALITY_UNSPECIFIED, *QUALITIES)),
    price_nanousd_max=st.one_of(st.none(), st.integers(0, 10**8)),
    session=st.sampled_from(("", "s1", "s2")),
)
requests = st.builds(
    Request,
    id=st.uuids().map(str),
    operation=st.just(common_pb2.OPERATION_CHAT),
    dialect=st.sampled_from((common_pb2.DIALECT_OPENAI, common_pb2.DIALECT_ANTHROPIC, common_pb2.DIALECT_GRPC)),
    model=st.just(MODEL),
    principal=st.just(PRINCIPAL),
    is_stream=st.booleans(),
    features=st.frozensets(st.sampled_from(FEATURES), max_size=2),
    prompt_text_bytes=st.integers(0, 3000),
    message_count=st.integers(1, 5),
    output_tokens_max=st.one_of(st.none(), st.integers(1, 600)),
    choices=st.integers(1, 3),
    hints=hints,
    prompt_tokens=st.sampled_from(((), ((("d1", 7),)), ((("d2", 5000),)))),
    prefix_blocks=st.integers(0, 4),
)
limits = st.lists(
    st.builds(
        Limit,
        id=st.integers(0, 9).map(lambda number: f"l{number}"),
        scope=st.sampled_from(
            ("organizations/default", PRINCIPAL.tenant_name, "organizations/else", f"models/{MODEL}", "deployments/d1")
        ),
        unit=st.sampled_from((USD, TOKENS, REQUESTS, IN_FLIGHT)),
        window=st.just(ledger_pb2.LIMIT_WINDOW_NONE),
        cap=st.integers(1, 10**9),
    ),
    max_size=4,
    unique_by=lambda limit: limit.id,
).map(tuple)


@st.composite
def views(draw: st.DrawFn) -> View:
    """A view of one model with two deployments, its door somewhere or nowhere."""
    return View(
        models={MODEL: ("d1", "d2")},
        replicas=by_deployment(draw(fleets)),
        policies=draw(policy_sets),
        limits=draw(limits),
        here=draw(st.sampled_from(((JURISDICTIONS.place("eu/de"),), (JURISDICTIONS.place("us/va"),), (None,), ()))),
    )


rates = st.sampled_from((0.0, 30.0, 500.0))
loads = st.builds(Load, st.integers(0, 9), st.integers(0, 9), rates, rates)
_replica_ids = st.integers(0, 8).map(lambda number: f"r{number}")
headrooms = st.dictionaries(st.integers(0, 9).map(lambda number: f"l{number}"), st.integers(0, 10**9))


def _moment(
    headroom: dict[str, int], in_flight: dict[str, int], loads: dict[str, Load], matches: dict[str, int]
) -> Moment:
    return Moment(lambda limit: headroom.get(limit, 0), in_flight, loads, matches)


moments = st.builds(
    _moment,
    headrooms,
    st.dictionaries(_replica_ids, st.integers(0, 3)),
    st.dictionaries(
        _replica_ids,
        loads,
    ),
    st.dictionaries(_replica_ids, st.integers(0, 4)),
)
