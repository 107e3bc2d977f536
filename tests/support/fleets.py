"""Random fleets, policies and requests for property tests."""

from collections.abc import Mapping

from hypothesis import strategies as st

from enginehouse.router import (
    Capabilities,
    Chip,
    Hints,
    Jurisdictions,
    Policy,
    Price,
    Principal,
    Replica,
    Request,
    Residency,
    View,
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
        "chip": st.sampled_from(CHIPS).map(Chip),
        "capabilities": capabilities,
        "price": st.one_of(st.none(), prices),
        "quality": st.sampled_from(QUALITIES),
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
policies = st.builds(
    Policy,
    residency=st.lists(rules, max_size=2).map(tuple),
    chips_allowed=st.one_of(st.none(), st.frozensets(st.sampled_from(CHIPS))),
    chips_forbidden=st.frozensets(st.sampled_from(CHIPS), max_size=1),
    chips_preferred=st.lists(st.sampled_from(CHIPS), max_size=1).map(tuple),
    quality_floor=st.sampled_from((common_pb2.QUALITY_UNSPECIFIED, *QUALITIES)),
    price_nanousd_max=st.one_of(st.none(), st.integers(0, 10**8)),
    models=st.sampled_from((None, None, frozenset({MODEL}), frozenset({"another"}))),
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
        limits=draw(limits),
        here=draw(st.sampled_from(((JURISDICTIONS.place("eu/de"),), (JURISDICTIONS.place("us/va"),), (None,), ()))),
    )


headrooms = st.dictionaries(st.integers(0, 9).map(lambda number: f"l{number}"), st.integers(0, 10**9))
in_flights = st.dictionaries(st.integers(0, 8).map(lambda number: f"r{number}"), st.integers(0, 3))
