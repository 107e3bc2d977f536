"""Limits: one mechanism for USD, tokens, requests and requests in flight."""

from enginehouse.router.limits.book import Book, BookShare, Due, Held
from enginehouse.router.limits.ledger import (
    Account,
    Demand,
    Share,
    Shortage,
    charge,
    close,
    give_back,
    grant,
    lease,
    open_account,
    set_cap,
    share_id,
    thresholds_passed,
    write_off,
)
from enginehouse.router.limits.limit import IN_FLIGHT, REQUESTS, TOKENS, USD, Limit
from enginehouse.router.limits.window import EVER, Window, window_at

__all__ = [
    "EVER",
    "IN_FLIGHT",
    "REQUESTS",
    "TOKENS",
    "USD",
    "Account",
    "Book",
    "BookShare",
    "Demand",
    "Due",
    "Held",
    "Limit",
    "Share",
    "Shortage",
    "Window",
    "charge",
    "close",
    "give_back",
    "grant",
    "lease",
    "open_account",
    "set_cap",
    "share_id",
    "thresholds_passed",
    "window_at",
    "write_off",
]
