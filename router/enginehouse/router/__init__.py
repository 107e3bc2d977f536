"""The decision core: pure functions and frozen data. No I/O, no clock, no randomness."""

from enginehouse.router.chip import Chip, ChipRule
from enginehouse.router.count import worth_counting
from enginehouse.router.decide import decide, verdicts
from enginehouse.router.decision import Decision, Need, Refused, Verdict
from enginehouse.router.jurisdiction import Jurisdictions, Place, Residency, residency
from enginehouse.router.moment import Headroom, Moment
from enginehouse.router.policy import (
    NO_POLICY,
    NOTHING_ALLOWED,
    NOWHERE,
    Policy,
    PolicyRule,
    PolicySet,
    Route,
    TightBudget,
    Weights,
    When,
    combine,
    narrow,
)
from enginehouse.router.price import NANOUSD_PER_USD, Price, hourly_price
from enginehouse.router.replica import IDLE, Capabilities, Load, Replica
from enginehouse.router.request import NO_HINTS, Hints, Principal, Request
from enginehouse.router.settlement import Ending, Settlement, settle
from enginehouse.router.view import View, by_deployment

__all__ = [
    "IDLE",
    "NANOUSD_PER_USD",
    "NOTHING_ALLOWED",
    "NOWHERE",
    "NO_HINTS",
    "NO_POLICY",
    "Capabilities",
    "Chip",
    "ChipRule",
    "Decision",
    "Ending",
    "Headroom",
    "Hints",
    "Jurisdictions",
    "Load",
    "Moment",
    "Need",
    "Place",
    "Policy",
    "PolicyRule",
    "PolicySet",
    "Price",
    "Principal",
    "Refused",
    "Replica",
    "Request",
    "Residency",
    "Route",
    "Settlement",
    "TightBudget",
    "Verdict",
    "View",
    "Weights",
    "When",
    "by_deployment",
    "combine",
    "decide",
    "hourly_price",
    "narrow",
    "residency",
    "settle",
    "verdicts",
    "worth_counting",
]
