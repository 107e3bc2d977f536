"""What a node does next for one deployment: a rolling replacement, as a pure function of what runs here.

The successor starts beside the replica that it replaces, and that one leaves only when the successor has generated a
token and every router sends it requests. One replica is replaced at a time. Where the host has no accelerators for both
at once, the old one has to leave first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from enginehouse.engines import ASLEEP, FAILED, READY, SERVING, State


@dataclass(frozen=True, slots=True)
class Standing:
    """A replica as it stands.

    Attributes:
        number: its place among the deployment's replicas on this node, from 0. Successors have the same one.
        fits: it was started with what the newest revision wants.
        has_served: it was ready at least once.
        is_seen: every router sends it requests.
        is_leaving: it is being drained and will go.
        reason: why it is in its state, for people.
    """

    id: str
    number: int
    state: State
    fits: bool
    has_served: bool = False
    is_seen: bool = True
    is_leaving: bool = False
    reason: str = ""


class Leaving(Enum):
    """Why a replica leaves, which decides how long it lets its requests end."""

    UNPLACED = "not placed here any more"
    SUPERSEDED = "a newer revision came before it served"
    REPLACED = "its successor serves"
    WITHOUT_ROOM = "the host has no accelerators for both: others serve until its successor does"
    ALONE_WITHOUT_ROOM = "the host has no accelerators for both: nobody serves until its successor does"


@dataclass(frozen=True, slots=True)
class Steps:
    """What is to be done now.

    Attributes:
        start: numbers of the replicas that are to be started.
        leave: ids of those that are to leave.
        asks_room: what comes next depends on whether the host has room for one more.
        waits_for: why the next replacement has to wait, for people. Empty: it has not.
    """

    start: tuple[int, ...] = ()
    leave: tuple[tuple[str, Leaving], ...] = ()
    asks_room: bool = False
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other nodes do for the deployment.

    Attributes:
        serves: a replica is ready on one of them.
        turn: why this node may not leave a gap now. Empty: it may.
    """

    serves: bool = False
    turn: str = ""


def next_steps(
    count: int,
    replicas: Sequence[Standing],
    *,
    has_room: bool | None = True,
    elsewhere: Callable[[], Elsewhere] = Elsewhere,
) -> Steps:
    """What to do for a deployment that wants `count` replicas here.

    Args:
        replicas: all that are here.
        has_room: the host has accelerators for one more. None: nobody has looked yet.
        elsewhere: looked at only where there is no room.
    """
    here = [one for one in replicas if not one.is_leaving]
    superseded = [one for one in here if not one.fits and _is_of_no_use(one)]
    staying = [one for one in here if one.number < count and one not in superseded]
    fitting = {one.number: one for one in staying if one.fits}
    outdated, spare = _by_number([one for one in staying if not one.fits])
    leave = [
        *((one.id, Leaving.SUPERSEDED) for one in superseded),
        *((one.id, Leaving.UNPLACED) for one in here if one.number >= count and one not in superseded),
        *((one.id, Leaving.REPLACED) for one in spare),
        *((one.id, Leaving.REPLACED) for number, one in outdated.items() if _takes_over(fitting.get(number))),
    ]
    empty = tuple(number for number in range(count) if number not in outdated and number not in fitting)
    has_leavers = bool(leave) or len(here) < len(replicas)
    if empty and has_leavers and not has_room:  # what leaves has what the new one needs
        return Steps(leave=tuple(leave), asks_room=has_room is None)
    if has_leavers or empty or not outdated or any(number in fitting for number in outdated):
        return Steps(empty, tuple(leave))
    unready = sorted(one.id for one in fitting.values() if one.state not in (READY, ASLEEP))
    if unready:  # it may need what the next one would take, and a revision that does not work goes no further
        return Steps(waits_for=f"{', '.join(unready)} is not ready")
    number = min(outdated)
    if has_room is None:
        return Steps(asks_room=True)
    if has_room:
        return Steps((number,))
    return _without_room(outdated[number], fitting, outdated, elsewhere())


def _without_room(
    old: Standing, fitting: Mapping[int, Standing], outdated: Mapping[int, Standing], elsewhere: Elsewhere
) -> Steps:
    if elsewhere.turn:
        return Steps(waits_for=elsewhere.turn)
    others = [one for one in (*fitting.values(), *outdated.values()) if one is not old and one.state == READY]
    why = Leaving.WITHOUT_ROOM if others or elsewhere.serves else Leaving.ALONE_WITHOUT_ROOM
    return Steps(leave=((old.id, why),))


def _by_number(outdated: Sequence[Standing]) -> tuple[dict[int, Standing], list[Standing]]:
    """One outdated replica for each number, the one that serves best, and those to spare."""
    kept: dict[int, Standing] = {}
    for one in sorted(outdated, key=_usefulness):
        kept[one.number] = one
    return kept, [one for one in outdated if kept[one.number] is not one]


def _usefulness(one: Standing) -> tuple[bool, bool, bool]:
    return one.state == READY and one.is_seen, one.state == READY, one.state in SERVING


def _takes_over(successor: Standing | None) -> bool:
    return successor is not None and successor.state == READY and successor.is_seen


def _is_of_no_use(outdated: Standing) -> bool:
    """It can be spared: nobody was ever served by it, or nobody will be."""
    return outdated.state == FAILED or (not outdated.has_served and outdated.state not in SERVING)
