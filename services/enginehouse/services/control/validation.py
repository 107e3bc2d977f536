"""What a policy, a limit and a deployment must be. One small validator per message."""

import math
import re
from collections.abc import Iterable
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf.descriptor import EnumDescriptor

from enginehouse.contract import RequestError
from enginehouse.router.limits import IN_FLIGHT
from enginehouse.services.control.names import TenantName, checked_id
from enginehouse.v1 import admin_pb2, ledger_pb2, router_pb2
from enginehouse.v1.common_pb2 import ChipClass, Lane, Price, Quality

CAP_MAX = 10**18
"""A thousand million USD in nano-USD. Sums of a few such amounts still fit into 64 bits."""

_JURISDICTION = re.compile(r"[a-z]{2,}(/[a-z0-9-]+)*")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT_LENGTH_MAX = 200


def check_display_name(text: str) -> None:
    """A display name has at most 200 characters and no control characters."""
    if len(text) > _TEXT_LENGTH_MAX or not (text.isprintable() or not text):
        raise RequestError(f"display_name must have at most {_TEXT_LENGTH_MAX} printable characters")


def check_policy(policy: admin_pb2.Policy) -> None:
    """A policy names only what exists: jurisdictions by their syntax, chips, qualities and lanes by their list.

    Raises:
        RequestError: with the field, its value and what was expected.
    """
    check_residency(policy.residency)
    for field, chips in (
        ("chips_allowed", policy.chips_allowed),
        ("chips_forbidden", policy.chips_forbidden),
        ("chips_preferred", policy.chips_preferred),
    ):
        for chip in chips:
            _check_known(f"policy.{field}", chip, ChipClass.DESCRIPTOR)
    _check_optional("policy.quality_floor", policy.quality_floor, Quality.DESCRIPTOR)
    _check_optional("policy.lane", policy.lane, Lane.DESCRIPTOR)
    _check_not_negative("policy.price_nanousd_max", policy.price_nanousd_max)
    for model in policy.models:
        _check_model("policy.models", model)
    weights = policy.weights
    for field, weight in (
        ("cost", weights.cost),
        ("quality", weights.quality),
        ("wait", weights.wait),
        ("affinity", weights.affinity),
        ("chip", weights.chip),
    ):
        if not math.isfinite(weight) or weight < 0:
            raise RequestError(f"policy.weights.{field} is {weight}; a weight is a number of at least 0")


def check_residency(residency: router_pb2.Residency) -> None:
    """Jurisdictions are written like ``eu`` or ``us/va``."""
    for field, places in (("allow", residency.allow), ("deny", residency.deny)):
        for place in places:
            if not _JURISDICTION.fullmatch(place):
                raise RequestError(
                    f"policy.residency.{field} has {place[:80]!r}; write a jurisdiction like 'eu', 'eu/de' or 'us/va'"
                )


def check_limit(limit: admin_pb2.Limit) -> None:
    """A limit caps a known unit in a known window at a positive number. Whether its scope exists is not looked at."""
    _check_known("limit.unit", limit.unit, ledger_pb2.LimitUnit.DESCRIPTOR)
    _check_known("limit.window", limit.window, ledger_pb2.LimitWindow.DESCRIPTOR)
    check_cap(limit.cap)
    if limit.unit == IN_FLIGHT and limit.window != ledger_pb2.LIMIT_WINDOW_NONE:
        raise RequestError(
            "limit.window must be LIMIT_WINDOW_NONE for requests in flight: they do not end with a window"
        )
    try:
        ZoneInfo(limit.time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise RequestError(
            f"limit.time_zone {limit.time_zone[:80]!r} is not known; write an IANA name like 'Europe/Berlin'"
        ) from error


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
    price: Price = placement.price
    amounts = (
        price.input_nanousd_per_million_tokens,
        price.cached_input_nanousd_per_million_tokens,
        price.output_nanousd_per_million_tokens,
        price.request_nanousd,
    )
    for amount in amounts:
        _check_not_negative(f"{where}.price", amount)
    if not any(amounts):
        raise RequestError(f"{where}.price is missing; nothing is free: give what a token or a request costs")


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
