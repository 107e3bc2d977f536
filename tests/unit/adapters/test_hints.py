import pytest

from enginehouse.adapters import combine_hints, hints_from_headers, hints_from_member
from enginehouse.contract import Reason, RequestError
from enginehouse.v1 import common_pb2

WHOLE = common_pb2.Hints(
    residency=["eu", "us/va"],
    chip=common_pb2.CHIP_CLASS_TPU,
    quality=common_pb2.QUALITY_HIGH,
    price_nanousd_max=10_500_000,
    session="s1",
)


def test_the_member_and_the_headers_say_the_same() -> None:
    member = {"residency": ["EU", "us/va"], "chip": "tpu", "quality": "high", "max_price": "0.0105", "session": "s1"}
    headers = {
        "x-enginehouse-residency": "eu, US/VA",
        "x-enginehouse-chip": "tpu",
        "x-enginehouse-quality": "high",
        "x-enginehouse-max-price": " 0.0105 ",
        "x-enginehouse-session": "s1",
        "content-type": "application/json",
        "x-enginehouse-internal-place": "eu/de",
    }
    assert hints_from_member(member) == WHOLE
    assert hints_from_headers(headers) == WHOLE


@pytest.mark.parametrize(
    ("price", "nanousd"),
    [
        ("0.01", 10_000_000),
        (0.01, 10_000_000),
        (1e-9, 1),
        (3, 3_000_000_000),
        ("0.0000000019", 1),  # narrower, never wider
    ],
)
def test_a_price_is_read_to_the_nanodollar(price: object, nanousd: int) -> None:
    assert hints_from_member({"max_price": price}).price_nanousd_max == nanousd


@pytest.mark.parametrize("price", [0, -1, "0", "0.0000000001", "free", "1e9", "NaN", "9" * 11, True, [1], ""])
def test_a_price_that_would_be_no_limit_is_refused(price: object) -> None:
    with pytest.raises(RequestError, match="max_price"):
        hints_from_member({"max_price": price})


@pytest.mark.parametrize(
    "member",
    [
        {"residency": []},
        {"residency": [""]},
        {"residency": ["eu/"]},
        {"residency": "e u"},
        {"residency": ["eu"] * 33},
        {"residency": 5},
        {"chip": "npu"},
        {"chip": 1},
        {"quality": "best"},
        {"session": ""},
        {"session": "s" * 257},
        "eu",
    ],
)
def test_a_value_that_does_not_fit_is_refused(member: object) -> None:
    with pytest.raises(RequestError) as caught:
        hints_from_member(member)
    assert caught.value.reason is Reason.MALFORMED_REQUEST


def test_an_unknown_hint_is_named_with_those_there_are() -> None:
    with pytest.raises(RequestError, match=r"'region' is not a hint; the hints are residency, chip") as caught:
        hints_from_member({"region": "eu"})
    assert caught.value.reason is Reason.UNKNOWN_HINT


@pytest.mark.parametrize("header", ["x-enginehouse-region", "x-enginehouse-max_price", "x-enginehouse-internal"])
def test_any_other_header_with_our_prefix_is_refused(header: str) -> None:
    with pytest.raises(RequestError) as caught:
        hints_from_headers({header: "1"})
    assert caught.value.reason is Reason.UNKNOWN_HINT


def test_hints_of_both_places_add_up() -> None:
    body, headers = hints_from_member({"chip": "gpu", "residency": ["eu"]}), hints_from_headers({})
    headers.session = "s"
    headers.residency.append("eu")
    combined = combine_hints(body, headers)
    assert (combined.chip, combined.session, list(combined.residency)) == (common_pb2.CHIP_CLASS_GPU, "s", ["eu"])


def test_hints_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(RequestError, match="residency differs"):
        combine_hints(hints_from_member({"residency": "eu"}), hints_from_headers({"x-enginehouse-residency": "us"}))
