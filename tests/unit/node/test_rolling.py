"""What a node does next for a deployment whose engine changes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginehouse.engines import DEGRADED, DRAINING, FAILED, LOADING, PENDING, READY, SERVING, STARTING, STOPPED, State
from enginehouse.services.node.rolling import Elsewhere, Leaving, Standing, Steps, next_steps

OLD = Standing("old", 0, READY, fits=False, has_served=True)
NEW = Standing("new", 0, READY, fits=True, has_served=True)
GONE = Elsewhere()


def test_successor_starts_beside_the_replica_that_it_replaces() -> None:
    assert next_steps(1, [OLD]) == Steps(start=(0,))


@pytest.mark.parametrize("state", [PENDING, STARTING, LOADING, DEGRADED, FAILED])
def test_old_replica_stays_while_its_successor_does_not_serve(state: State) -> None:
    assert next_steps(1, [OLD, replace(NEW, state=state)]) == Steps()


def test_old_replica_stays_until_every_router_sends_requests_to_its_successor() -> None:
    assert next_steps(1, [OLD, replace(NEW, is_seen=False)]) == Steps()
    assert next_steps(1, [OLD, NEW]) == Steps(leave=(("old", Leaving.REPLACED),))


def test_one_replica_is_replaced_at_a_time() -> None:
    second, next_one = replace(OLD, id="old-1", number=1), replace(NEW, id="new-1", number=1)
    assert next_steps(2, [OLD, second]).start == (0,)
    assert next_steps(2, [OLD, second, replace(NEW, state=LOADING)]) == Steps()
    assert next_steps(2, [replace(OLD, is_leaving=True), second, NEW]) == Steps()
    assert next_steps(2, [second, replace(NEW, state=LOADING)]) == Steps(waits_for="new is not ready")
    assert next_steps(2, [second, replace(NEW, state=FAILED)]) == Steps(waits_for="new is not ready")
    assert next_steps(2, [second, NEW]).start == (1,)
    assert next_steps(2, [second, NEW, next_one]).leave == (("old-1", Leaving.REPLACED),)


def test_successor_that_never_served_makes_way_for_a_newer_one_and_the_old_replica_stays() -> None:
    failed = replace(NEW, fits=False, state=FAILED, has_served=False)
    assert next_steps(1, [OLD, failed]).leave == (("new", Leaving.SUPERSEDED),)
    assert next_steps(1, [OLD, replace(failed, is_leaving=True)]) == Steps()
    assert next_steps(1, [OLD]).start == (0,)


def test_change_that_is_taken_back_keeps_the_replica_that_serves() -> None:
    back, starting = replace(OLD, fits=True), replace(NEW, fits=False, state=LOADING, has_served=False)
    assert next_steps(1, [back, starting]) == Steps(leave=(("new", Leaving.SUPERSEDED),))


def test_of_two_outdated_replicas_in_one_place_the_one_that_routers_use_stays() -> None:
    second = replace(NEW, fits=False, is_seen=False)
    assert next_steps(1, [OLD, second]).leave == (("new", Leaving.REPLACED),)


def test_old_replica_that_has_crashed_and_may_come_back_is_kept() -> None:
    assert next_steps(1, [replace(OLD, state=PENDING)]) == Steps(start=(0,))


def test_without_having_looked_for_room_nothing_is_replaced() -> None:
    assert next_steps(1, [OLD], has_room=None) == Steps(asks_room=True)


def test_only_replica_of_a_full_host_leaves_first_and_its_successor_follows_when_it_is_gone() -> None:
    steps = next_steps(1, [OLD], has_room=False, elsewhere=lambda: GONE)
    assert steps == Steps(leave=(("old", Leaving.ALONE_WITHOUT_ROOM),))
    assert next_steps(1, [replace(OLD, is_leaving=True, state=DRAINING)], has_room=False) == Steps()
    assert next_steps(1, [], has_room=False).start == (0,)


def test_on_a_full_host_the_next_one_leaves_only_when_the_one_before_serves_again() -> None:
    second = replace(OLD, id="old-1", number=1)
    steps = next_steps(2, [OLD, second], has_room=False)
    assert steps.leave == (("old", Leaving.WITHOUT_ROOM),)
    steps = next_steps(2, [replace(NEW, state=LOADING), second], has_room=False)
    assert (steps.leave, steps.waits_for) == ((), "new is not ready")
    steps = next_steps(2, [replace(NEW, state=FAILED), second], has_room=False)
    assert (steps.leave, steps.waits_for) == ((), "new is not ready")
    assert next_steps(2, [NEW, second], has_room=False).leave == (("old-1", Leaving.WITHOUT_ROOM),)


def test_full_host_waits_for_its_turn_among_the_nodes() -> None:
    steps = next_steps(1, [OLD], has_room=False, elsewhere=lambda: Elsewhere(serves=True, turn="node a is before"))
    assert steps == Steps(waits_for="node a is before")
    steps = next_steps(1, [OLD], has_room=False, elsewhere=lambda: Elsewhere(serves=True))
    assert steps.leave == (("old", Leaving.WITHOUT_ROOM),)


def test_replica_that_is_not_placed_any_more_leaves() -> None:
    second = replace(NEW, id="new-1", number=1)
    assert next_steps(1, [NEW, second]).leave == (("new-1", Leaving.UNPLACED),)
    assert next_steps(0, [NEW, OLD]).leave == (("new", Leaving.UNPLACED), ("old", Leaving.UNPLACED))


_STATES = st.sampled_from([PENDING, STARTING, LOADING, READY, DEGRADED, FAILED])


@st.composite
def _here(draw: st.DrawFn) -> list[Standing]:
    found = []
    for number in range(draw(st.integers(1, 3))):
        for kind in draw(st.sets(st.sampled_from(["old", "older", "new"]), max_size=3)):
            is_leaving = draw(st.booleans())
            found.append(
                Standing(
                    f"{kind}-{number}",
                    number,
                    DRAINING if is_leaving else draw(_STATES),
                    fits=kind == "new",
                    has_served=draw(st.booleans()),
                    is_seen=draw(st.booleans()),
                    is_leaving=is_leaving,
                )
            )
    return found


@given(count=st.integers(1, 3), here=_here())
def test_with_room_no_place_that_served_is_left_without_a_replica_that_serves(count: int, here: list[Standing]) -> None:
    steps = next_steps(count, here)
    leaving = {replica_id for replica_id, _ in steps.leave}
    for number in range(count):
        before = [one for one in here if one.number == number and not one.is_leaving and one.state in SERVING]
        assert not before or any(one.id not in leaving for one in before)


@given(count=st.integers(1, 3), here=_here(), has_room=st.booleans())
def test_every_replacement_comes_to_its_end(count: int, here: list[Standing], has_room: bool) -> None:
    serial = 0
    for _ in range(50):
        steps = next_steps(count, here, has_room=has_room)
        gone = {replica_id for replica_id, _ in steps.leave}
        if not gone and not steps.start and all(_is_done(one) for one in here):
            break
        here = [one for one in here if one.id not in gone and not one.is_leaving]
        here = [_served(one) for one in here]
        for number in steps.start:
            serial += 1
            here.append(Standing(f"new-{number}-{serial}", number, LOADING, fits=True))
    assert sorted(one.number for one in here if one.fits) == list(range(count))
    assert all(one.fits for one in here)


def _served(one: Standing) -> Standing:
    """What becomes of it when everything goes well."""
    return one if one.state == STOPPED else replace(one, state=READY, has_served=True, is_seen=True)


def _is_done(one: Standing) -> bool:
    return one.state == READY and one.is_seen and not one.is_leaving
