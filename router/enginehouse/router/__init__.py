"""The decision core: pure functions and frozen data. No I/O, no clock, no randomness."""

from enginehouse.router.decide import decide, lane_of
from enginehouse.router.decision import Decision, Need, Refused, Verdict
from enginehouse.router.jurisdiction import Jurisdictions, Place, Residency, residency
from enginehouse.router.policy import Policy, Weights, narrow
from enginehouse.router.price import NANOUSD_PER_USD, Price, hourly_price
from enginehouse.router.replica import Capabilities, Chip, Replica
from enginehouse.router.request import NO_HINTS, Hints, Principal, Request
from enginehouse.router.settlement import Ending, Settlement, settle
from enginehouse.router.view import View, by_deployment

__all__ = [
    "NANOUSD_PER_USD",
    "NO_HINTS",
    "Capabilities",
    "Chip",
    "Decision",
    "Ending",
    "Hints",
    "Jurisdictions",
    "Need",
    "Place",
    "Policy",
    "Price",
    "Principal",
    "Refused",
    "Replica",
    "Request",
    "Residency",
    "Settlement",
    "Verdict",
    "View",
    "Weights",
    "by_deployment",
    "decide",
    "hourly_price",
    "lane_of",
    "narrow",
    "residency",
    "settle",
]
