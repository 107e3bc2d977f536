"""What a limit and a deployment must be. One small validator per message; those of policies are beside `policies`."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf.descriptor import EnumDescriptor

from enginehouse.contract import RequestError
from enginehouse.router.limits import IN_FLIGHT
from enginehouse.services.control.names import TenantName, checked_id
from enginehouse.v1 import admin_pb2, ledger_pb2
from enginehouse.v1.common_pb2 import Feature, Lane, Price, Quality

CAP_MAX = 10**18
"""A thousand million USD in nano-USD. Sums of a few such amounts still fit into 64 bits."""

_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT_LENGTH_MAX = 200
_SECONDS_MAX = 253_370_764_800
"""The year 9999 begins."""


def check_display_name(text: str) -> None:
    """A display name has at most 200 characters and no control characters."""
    if len(text) > _TEXT_LENGTH_MAX or not (text.isprintable() or not text):
        raise RequestError(f"display_name must have at most {_TEXT_LENGTH_MAX} printable characters")


def check_limit(limit: admin_pb2.Limit) -> None:
    """A limit caps a known unit in a known window at a positive number. Whether its scope exists is not looked at."""
    _check_known("limit.unit", limit.unit, ledger_pb2.LimitUnit.DESCRIPTOR)
    _check_known("limit.window", limit.window, ledger_pb2.LimitWindow.DESCRIPTOR)
    check_cap(limit.cap)
    if limit.unit == IN_FLIGHT and limit.window != ledger_pb2.LIMIT_WINDOW_NONE:
        raise RequestError(
            "limit.window must be LIMIT_WINDOW_NONE for requests in flight: they do not end with a window"
        )
    _check_period(limit)
    try:
        ZoneInfo(limit.time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise RequestError(
            f"limit.time_zone {limit.time_zone[:80]!r} is not known; write an IANA name like 'Europe/Berlin'"
        ) from error


def _check_period(limit: admin_pb2.Limit) -> None:
    for field in ("start_time", "end_time"):
        given = getattr(limit, field)
        if limit.HasField(field) and not 0 < given.seconds <= _SECONDS_MAX:
            raise RequestError(f"limit.{field} is {given.seconds} s since 1970; it must be a moment in 1970 to 9998")
        if limit.HasField(field) and limit.unit == IN_FLIGHT:
            raise RequestError(f"limit.{field} must be absent for requests in flight: they do not end with a period")
    if (
        limit.HasField("start_time")
        and limit.HasField("end_time")
        and ((limit.end_time.seconds, limit.end_time.nanos) <= (limit.start_time.seconds, limit.start_time.nanos))
    ):
        raise RequestError(
            f"limit.end_time is {limit.end_time.ToJsonString()}, not later than limit.start_time"
            f" {limit.start_time.ToJsonString()}"
        )


def check_cap(cap: int) -> None:
    """A cap is positive and small enough to be added up."""
    if not 0 < cap <= CAP_MAX:
        raise RequestError(f"limit.cap is {cap}; it must be between 1 and {CAP_MAX}, in the limit's unit")


def check_deployment(deployment: admin_pb2.Deployment) -> None:
    """A deployment has a model, an engine, and placements with prices. An unknown price is refused, never free."""
    _check_model("deployment.model", deployment.model)
    for alias in deployment.aliases:
        _check_model("deployment.aliases", alias)
    _check_distinct("deployment.aliases", [deployment.model, *deployment.aliases])
    checked_id(deployment.engine, "deployment.engine")
    _check_optional("deployment.lane", deployment.lane, Lane.DESCRIPTOR)
    for tenant in deployment.tenants:
        TenantName.parse(tenant)
    _check_settings(deployment.settings)
    _check_distinct("deployment.placements", [placement.node for placement in deployment.placements])
    for placement in deployment.placements:
        _check_placement(placement)


def _check_settings(settings: admin_pb2.EngineSettings) -> None:
    for field, number in (
        ("context_tokens_max", settings.context_tokens_max),
        ("output_tokens_max", settings.output_tokens_max),
        ("parallel", settings.parallel),
        ("threads", settings.threads),
        ("tensor_parallel", settings.tensor_parallel),
        ("pipeline_parallel", settings.pipeline_parallel),
    ):
        _check_not_negative(f"deployment.settings.{field}", number)
    _check_optional("deployment.settings.api", settings.api, admin_pb2.EngineApi.DESCRIPTOR)
    for feature in settings.features:
        _check_known("deployment.settings.features", feature, Feature.DESCRIPTOR)
    if not 0 <= settings.memory_fraction <= 1:
        raise RequestError("deployment.settings.memory_fraction must be above 0 and up to 1, or 0 for the default")
    if settings.HasField("container") and not settings.container.image:
        raise RequestError("deployment.settings.container.image is missing; name the image, or leave the container out")
    for name in settings.environment:
        if not _VARIABLE.fullmatch(name):
            raise RequestError(f"deployment.settings.environment has {name[:80]!r}, which is not a variable's name")
    if settings.external_url:
        parts = urlsplit(settings.external_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise RequestError("deployment.settings.external_url must be an http:// or https:// URL with a host")


def _check_placement(placement: admin_pb2.Placement) -> None:
    node = checked_id(placement.node, "deployment.placements.node")
    where = f"deployment.placements[{node}]"
    _check_optional(f"{where}.quality", placement.quality, Quality.DESCRIPTOR)
    _check_not_negative(f"{where}.replicas", placement.replicas)
    _check_not_negative(f"{where}.in_flight_max", placement.in_flight_max)
    for task, score in sorted(placement.quality_scores.items()):
        if not 0 <= score <= 1:
            raise RequestError(f"{where}.quality_scores[{task[:40]}] is {score}; a score is a number from 0 to 1")
    _check_price(f"{where}.price", placement.price)


def _check_price(where: str, price: Price) -> None:
    amounts = (
        ("input_nanousd_per_million_tokens", price.input_nanousd_per_million_tokens),
        ("cached_input_nanousd_per_million_tokens", price.cached_input_nanousd_per_million_tokens),
        ("output_nanousd_per_million_tokens", price.output_nanousd_per_million_tokens),
        ("request_nanousd", price.request_nanousd),
        ("hour_nanousd", price.hour_nanousd),
    )
    rates = (
        ("input_tokens_per_second", price.input_tokens_per_second),
        ("output_tokens_per_second", price.output_tokens_per_second),
    )
    for field, amount in (*amounts, *rates):
        _check_not_negative(f"{where}.{field}", amount)
    if any(rate for _, rate in rates) and not price.hour_nanousd:
        raise RequestError(f"{where}.hour_nanousd is missing; tokens per second are what an hour's cost is spread over")
    if not any(amount for _, amount in amounts):
        raise RequestError(f"{where} is missing; nothing is free: give what a token, a request or an hour costs")


def _check_known(field: str, value: int, enum: EnumDescriptor) -> None:
    known = enum.values_by_number
    if value == 0 or value not in known:
        names = [known[number].name for number in sorted(known) if number]
        given = known[value].name if value in known else value
        raise RequestError(f"{field} is {given}; choose one of {', '.join(names)}")


def _check_optional(field: str, value: int, enum: EnumDescriptor) -> None:
    if value != 0:
        _check_known(field, value, enum)


def _check_not_negative(field: str, value: int) -> None:
    if value < 0:
        raise RequestError(f"{field} is {value}; it must not be negative")


def _check_model(field: str, name: str) -> None:
    if not _MODEL.fullmatch(name):
        raise RequestError(f"{field} has {name[:80]!r}, which is not a model name: use letters, digits and ._:/@+-")


def _check_distinct(field: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise RequestError(f"{field} names {name!r} twice")
        seen.add(name)
