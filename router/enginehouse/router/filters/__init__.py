"""The rules, in the order in which they are asked. The last rule that drops a candidate is what its caller is told."""

from enginehouse.router.filters.availability import AvailabilityFilter, SlotFilter
from enginehouse.router.filters.chip import ChipFilter
from enginehouse.router.filters.context import ContextFilter
from enginehouse.router.filters.feature import FeatureFilter
from enginehouse.router.filters.filter import Filter
from enginehouse.router.filters.limit import BUDGET_FILTER, RATE_FILTER, LimitFilter
from enginehouse.router.filters.operation import OperationFilter
from enginehouse.router.filters.price import PriceKnownFilter, PriceMaximumFilter
from enginehouse.router.filters.quality import QualityFilter
from enginehouse.router.filters.residency import ResidencyFilter
from enginehouse.router.filters.tenant import TenantFilter

FILTERS: tuple[Filter, ...] = (
    TenantFilter(),
    OperationFilter(),
    FeatureFilter(),
    ContextFilter(),
    ResidencyFilter(),
    ChipFilter(),
    QualityFilter(),
    PriceKnownFilter(),
    PriceMaximumFilter(),
    AvailabilityFilter(),
    SlotFilter(),
    RATE_FILTER,
    BUDGET_FILTER,
)

__all__ = [
    "BUDGET_FILTER",
    "FILTERS",
    "RATE_FILTER",
    "AvailabilityFilter",
    "ChipFilter",
    "ContextFilter",
    "FeatureFilter",
    "Filter",
    "LimitFilter",
    "OperationFilter",
    "PriceKnownFilter",
    "PriceMaximumFilter",
    "QualityFilter",
    "ResidencyFilter",
    "SlotFilter",
    "TenantFilter",
]
