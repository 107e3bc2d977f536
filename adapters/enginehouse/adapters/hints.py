"""Routing hints, as a JSON member and as headers. A hint narrows what policy allows and never widens it."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal

from enginehouse.adapters._fields import INT64_MAX, as_choice, as_object, as_text, as_texts, malformed, shown, unfit
from enginehouse.adapters.splices import HINTS_MEMBER
from enginehouse.contract import Reason, RequestError
from enginehouse.v1 import common_pb2

HEADER_PREFIX = "x-enginehouse-"
# Ours between Envoy and the router: Envoy removes them from what clients send.
INTERNAL_PREFIX = HEADER_PREFIX + "internal-"
RESIDENCIES_MAX = 32
SESSION_BYTES_MAX = 256
_JURISDICTION = re.compile(r"[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)*")
_JURISDICTION_BYTES_MAX = 64
_DECIMAL = re.compile(r"\d{1,10}(\.\d{1,18})?")
_NANOUSD_PER_USD = 10**9
_CHIPS = {
    "gpu": common_pb2.CHIP_CLASS_GPU,
    "tpu": common_pb2.CHIP_CLASS_TPU,
    "lpu": common_pb2.CHIP_CLASS_LPU,
    "cpu": common_pb2.CHIP_CLASS_CPU,
    "apple": common_pb2.CHIP_CLASS_APPLE,
}
_QUALITIES = {
    "low": common_pb2.QUALITY_LOW,
    "standard": common_pb2.QUALITY_STANDARD,
    "high": common_pb2.QUALITY_HIGH,
}


def hints_from_member(value: object) -> common_pb2.Hints:
    """The hints of the body member `enginehouse`: residency, chip, quality, max_price (USD) and session.

    Raises:
        RequestError: UNKNOWN_HINT for another name, MALFORMED_REQUEST for a value that does not fit.
    """
    hints = common_pb2.Hints()
    for name, hint in as_object(value, HINTS_MEMBER).items():
        reader = _READERS.get(name)
        if reader is None:
            raise _unknown(f"{HINTS_MEMBER}.{shown(name)}", ", ".join(_READERS))
        if hint is not None:
            reader(hints, hint, f"{HINTS_MEMBER}.{name}")
    return hints


def hints_from_headers(headers: Mapping[str, str]) -> common_pb2.Hints:
    """The hints of the headers ``x-enginehouse-{residency,chip,quality,max-price,session}``; residencies with commas.

    Args:
        headers: names in lower case. Those without the prefix, and internal ones, are skipped.

    Raises:
        RequestError: as `hints_from_member`, for any other header with the prefix too.
    """
    hints = common_pb2.Hints()
    for name, text in headers.items():
        if not name.startswith(HEADER_PREFIX) or name.startswith(INTERNAL_PREFIX):
            continue
        member = name.removeprefix(HEADER_PREFIX).replace("-", "_")
        reader = _READERS.get(member)
        if reader is None or name != _header(member):
            raise _unknown(f"the header {shown(name)}", ", ".join(map(_header, _READERS)))
        value = [item.strip() for item in text.split(",")] if member == "residency" else text.strip()
        reader(hints, value, f"the header {name}")
    return hints


def combine_hints(body: common_pb2.Hints, headers: common_pb2.Hints) -> common_pb2.Hints:
    """The hints of both places.

    Raises:
        RequestError: the same hint has a value in each, and they differ.
    """
    in_body = {field.name: value for field, value in body.ListFields()}
    for field, value in headers.ListFields():
        if in_body.get(field.name, value) != value:
            message = f"the hint {field.name} differs between the body and the headers; give it once"
            raise RequestError(message, metadata={"field": f"{HINTS_MEMBER}.{field.name}"})
    combined = common_pb2.Hints()
    combined.CopyFrom(body)
    if headers.residency:  # a merge appends to lists
        combined.ClearField("residency")
    combined.MergeFrom(headers)
    return combined


def check_hints(hints: common_pb2.Hints) -> common_pb2.Hints:
    """Hints that came as a message, with the same rules as the written ones.

    Raises:
        RequestError: a value does not fit.
    """
    if hints.chip not in common_pb2.ChipClass.values():
        raise malformed("hints.chip", hints.chip, "a value of ChipClass")
    if hints.quality not in common_pb2.Quality.values():
        raise malformed("hints.quality", hints.quality, "a value of Quality")
    checked = common_pb2.Hints()
    checked.CopyFrom(hints)
    checked.ClearField("residency")
    if hints.residency:
        _read_residency(checked, list(hints.residency), "hints.residency")
    if hints.price_nanousd_max < 0:
        raise malformed("hints.price_nanousd_max", hints.price_nanousd_max, "nano-USD above 0, or 0 for no limit")
    if hints.session:
        _read_session(checked, hints.session, "hints.session")
    return checked


def _header(member: str) -> str:
    return HEADER_PREFIX + member.replace("_", "-")


def _unknown(what: str, known: str) -> RequestError:
    return RequestError(f"{what} is not a hint; the hints are {known}", Reason.UNKNOWN_HINT)


def _read_residency(hints: common_pb2.Hints, value: object, path: str) -> None:
    names = [value] if isinstance(value, str) else as_texts(value, path)
    if not 1 <= len(names) <= RESIDENCIES_MAX:
        raise malformed(path, value, f"1 to {RESIDENCIES_MAX} jurisdictions")
    for name in names:
        lower = name.lower()
        if len(lower) > _JURISDICTION_BYTES_MAX or not _JURISDICTION.fullmatch(lower):
            raise unfit(path, name, "a jurisdiction like 'eu' or 'us/va'")
        hints.residency.append(lower)


def _read_chip(hints: common_pb2.Hints, value: object, path: str) -> None:
    hints.chip = _CHIPS[as_choice(value, path, list(_CHIPS))]


def _read_quality(hints: common_pb2.Hints, value: object, path: str) -> None:
    hints.quality = _QUALITIES[as_choice(value, path, list(_QUALITIES))]


def _read_price(hints: common_pb2.Hints, value: object, path: str) -> None:
    text = format(Decimal(repr(value)), "f") if _is_number(value) else as_text(value, path)
    price_nanousd = int(Decimal(text) * _NANOUSD_PER_USD) if _DECIMAL.fullmatch(text) else 0
    if not 0 < price_nanousd <= INT64_MAX:  # 0 would mean "no limit" further on: the opposite of what was asked
        raise unfit(path, text, "USD from 0.000000001 upward, like '0.01'")
    hints.price_nanousd_max = price_nanousd


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_session(hints: common_pb2.Hints, value: object, path: str) -> None:
    session = as_text(value, path)
    if not 1 <= len(session.encode()) <= SESSION_BYTES_MAX:
        raise malformed(path, session, f"1 to {SESSION_BYTES_MAX} bytes")
    hints.session = session


_READERS: dict[str, Callable[[common_pb2.Hints, object, str], None]] = {
    "residency": _read_residency,
    "chip": _read_chip,
    "quality": _read_quality,
    "max_price": _read_price,
    "session": _read_session,
}
