"""The rules, in the order in which they are asked. The last rule that drops a candidate is what its caller is told.

First those over replicas and kinds of requests, once per view; then those over a request's size, per group of equal
replicas; last, per replica, whether it has a slot.
"""

from enginehouse.contract import Reason
from enginehouse.router.filters.availability import AvailabilityFilter
from enginehouse.router.filters.chip import ChipFilter
from enginehouse.router.filters.context import ContextFilter
from enginehouse.router.filters.feature import FeatureFilter
from enginehouse.router.filters.filter import Filter, Kind
from enginehouse.router.filters.limit import BUDGET_FILTER, RATE_FILTER, LimitFilter
from enginehouse.router.filters.operation import OperationFilter
from enginehouse.router.filters.price import PriceFilter
from enginehouse.router.filters.price_maximum import PriceMaximumFilter
from enginehouse.router.filters.quality import QualityFilter
from enginehouse.router.filters.residency import ResidencyFilter
from enginehouse.router.filters.route import RouteFilter
from enginehouse.router.filters.size import Offer, SizeFilter
from enginehouse.router.filters.tenant import TenantFilter

FILTERS: tuple[Filter, ...] = (
    TenantFilter(),
    OperationFilter(),
    FeatureFilter(),
    ResidencyFilter(),
    ChipFilter(),
    QualityFilter(),
    PriceFilter(),
    RouteFilter(),
    AvailabilityFilter(),
)
SIZE_FILTERS: tuple[SizeFilter, ...] = (ContextFilter(), PriceMaximumFilter(), RATE_FILTER, BUDGET_FILTER)
SLOTS = "slots"
REFUSALS = {
    **{rule.name: rule.refusal for rule in FILTERS},
    **{rule.name: rule.refusal for rule in SIZE_FILTERS},
    SLOTS: Reason.NO_REPLICA_AVAILABLE,
}
"""What each rule, in order, tells the caller when it dropped the last candidate."""

__all__ = [
    "BUDGET_FILTER",
    "FILTERS",
    "RATE_FILTER",
    "REFUSALS",
    "SIZE_FILTERS",
    "SLOTS",
    "AvailabilityFilter",
    "ChipFilter",
    "ContextFilter",
    "FeatureFilter",
    "Filter",
    "Kind",
    "LimitFilter",
    "Offer",
    "OperationFilter",
    "PriceFilter",
    "PriceMaximumFilter",
    "QualityFilter",
    "ResidencyFilter",
    "RouteFilter",
    "SizeFilter",
    "TenantFilter",
]
