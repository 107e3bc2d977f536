"""The windows of a limit: [start, end) in UTC, beginning where the limit's time zone says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from enginehouse.router.limits.limit import Limit
from enginehouse.v1 import ledger_pb2

UNCAPPED = 1 << 60
"""The cap outside a limit's period: more than can ever be spent, and a twentieth of it still fits into 64 bits."""

_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, in Unix milliseconds. `end_ms` is None when it never ends; `start_ms` is 0 for "from ever"."""

    start_ms: int
    end_ms: int | None

    def contains(self, now_ms: int) -> bool:
        """Whether `now_ms` lies inside: the start does, the end does not."""
        return self.start_ms <= now_ms and (self.end_ms is None or now_ms < self.end_ms)


EVER = Window(0, None)


def window_at(limit: Limit, now_ms: int) -> Window:
    """The window of `limit` that contains `now_ms`.

    Days and months run from local midnight to local midnight, so a day in which clocks change has 23 or 25 hours, or
    half an hour more or less. A minute or an hour that clocks cut off is a window of its own. The windows of a limit
    follow each other without a gap and never overlap; the time before its period is one window, and so is that after.
    """
    if limit.start_ms is not None and now_ms < limit.start_ms:
        return Window(0, limit.start_ms)
    if limit.end_ms is not None and now_ms >= limit.end_ms:
        return Window(limit.end_ms, None)
    window = _window_at(limit, now_ms)
    if limit.start_ms is not None and window.start_ms < limit.start_ms:
        window = replace(window, start_ms=limit.start_ms)
    if limit.end_ms is not None and (window.end_ms is None or window.end_ms > limit.end_ms):
        window = replace(window, end_ms=limit.end_ms)
    return window


def windows_after(limit: Limit, window: Window, until_ms: int) -> Iterator[Window]:
    """The windows that follow `window` and begin before `until_ms`."""
    while window.end_ms is not None and window.end_ms < until_ms:
        window = window_at(limit, window.end_ms)
        yield window


def cap_in(limit: Limit, window: Window) -> int:
    """The cap in one of the limit's windows."""
    return limit.cap if counts_in(limit, window) else UNCAPPED


def counts_in(limit: Limit, window: Window) -> bool:
    """Whether one of the limit's windows lies in the period in which it counts."""
    is_begun = limit.start_ms is None or window.start_ms >= limit.start_ms
    return is_begun and (limit.end_ms is None or window.start_ms < limit.end_ms)


def _window_at(limit: Limit, now_ms: int) -> Window:
    kind = limit.window
    if kind == ledger_pb2.LIMIT_WINDOW_NONE:
        return EVER
    zone = ZoneInfo(limit.time_zone)
    if kind == ledger_pb2.LIMIT_WINDOW_MINUTE:
        return _fixed(now_ms, _MINUTE_MS, zone)
    if kind == ledger_pb2.LIMIT_WINDOW_HOUR:
        return _fixed(now_ms, _HOUR_MS, zone)
    today = _local(now_ms, zone).date()
    if kind == ledger_pb2.LIMIT_WINDOW_DAY:
        return _between(now_ms, today, lambda day: day + timedelta(days=1), zone)
    return _between(now_ms, today.replace(day=1), _first_of_next_month, zone)


def _fixed(now_ms: int, length_ms: int, zone: ZoneInfo) -> Window:
    offset_ms = _offset_ms(now_ms, zone)
    start_ms = now_ms - (now_ms + offset_ms) % length_ms
    end_ms = start_ms + length_ms
    # Where clocks change by less than the length, what begins before the change ends with it.
    if (_offset_ms(start_ms, zone) - offset_ms) % length_ms:
        start_ms = _first(start_ms, now_ms, lambda moment_ms: _offset_ms(moment_ms, zone) == offset_ms)
    if (_offset_ms(end_ms - 1, zone) - offset_ms) % length_ms:
        end_ms = _first(now_ms, end_ms - 1, lambda moment_ms: _offset_ms(moment_ms, zone) != offset_ms)
    return Window(start_ms, end_ms)


def _between(now_ms: int, first: date, after: Callable[[date], date], zone: ZoneInfo) -> Window:
    last = after(first)
    end_ms = _begin_ms(last, zone)
    if end_ms <= now_ms:  # clocks went back over midnight: the day that has begun goes on
        first, last = last, after(last)
        end_ms = _begin_ms(last, zone)
    return Window(_begin_ms(first, zone), end_ms)


def _begin_ms(day: date, zone: ZoneInfo) -> int:
    """The first moment at which the local date is `day` or a later one."""
    midnight_ms = int(datetime.combine(day, time.min, zone).timestamp()) * 1000
    if _local(midnight_ms - 1, zone).date() < day:
        return midnight_ms
    # Clocks went forward over midnight, which there is not; the day began with that change.
    return _first(midnight_ms - _DAY_MS, midnight_ms, lambda moment_ms: _local(moment_ms, zone).date() >= day)


def _first(before_ms: int, at_ms: int, holds: Callable[[int], bool]) -> int:
    """The first moment at which `holds`, when it does not at `before_ms` and does at `at_ms`."""
    while at_ms - before_ms > 1:
        middle_ms = (before_ms + at_ms) // 2
        if holds(middle_ms):
            at_ms = middle_ms
        else:
            before_ms = middle_ms
    return at_ms


def _first_of_next_month(first: date) -> date:
    return (first + timedelta(days=32)).replace(day=1)


def _offset_ms(moment_ms: int, zone: ZoneInfo) -> int:
    return int((_local(moment_ms, zone).utcoffset() or timedelta()).total_seconds()) * 1000


def _local(moment_ms: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(moment_ms // 1000, UTC).astimezone(zone)
