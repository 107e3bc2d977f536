"""The windows of a limit: [start, end) in UTC, beginning where the limit's time zone says."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from enginehouse.router.limits.limit import Limit
from enginehouse.v1 import ledger_pb2


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, in Unix milliseconds. `end_ms` is None when it never ends; then `start_ms` is 0."""

    start_ms: int
    end_ms: int | None

    def contains(self, now_ms: int) -> bool:
        """Whether `now_ms` lies inside: the start does, the end does not."""
        return self.start_ms <= now_ms and (self.end_ms is None or now_ms < self.end_ms)


EVER = Window(0, None)


def window_at(limit: Limit, now_ms: int) -> Window:
    """The window of `limit` that contains `now_ms`.

    Days and months run from local midnight to local midnight, so a day in which clocks change has 23 or 25 hours.
    Minutes and hours have always the same length and begin where the zone's offset of that moment puts them.
    """
    kind = limit.window
    if kind == ledger_pb2.LIMIT_WINDOW_NONE:
        return EVER
    zone = ZoneInfo(limit.time_zone)
    local = datetime.fromtimestamp(now_ms / 1000, zone)
    if kind == ledger_pb2.LIMIT_WINDOW_MINUTE:
        return _fixed(now_ms, 60_000, local)
    if kind == ledger_pb2.LIMIT_WINDOW_HOUR:
        return _fixed(now_ms, 3_600_000, local)
    first = local.date() if kind == ledger_pb2.LIMIT_WINDOW_DAY else local.date().replace(day=1)
    after = first + timedelta(days=1) if kind == ledger_pb2.LIMIT_WINDOW_DAY else _first_of_next_month(first)
    return Window(_midnight_ms(first, zone), _midnight_ms(after, zone))


def _fixed(now_ms: int, length_ms: int, local: datetime) -> Window:
    offset = local.utcoffset() or timedelta()
    offset_ms = int(offset.total_seconds() * 1000)
    start_ms = now_ms - (now_ms + offset_ms) % length_ms
    return Window(start_ms, start_ms + length_ms)


def _first_of_next_month(first: date) -> date:
    return (first + timedelta(days=32)).replace(day=1)


def _midnight_ms(day: date, zone: ZoneInfo) -> int:
    # Where clocks go forward at 00:00 there is no midnight; the offset before the change gives the day's first moment.
    return int(datetime.combine(day, time.min, zone).timestamp() * 1000)
