"""Many seeds in one worker process."""

from tests.simulation.mutations import FAULTS, planted
from tests.simulation.quiet import quiet
from tests.simulation.world import Outcome, simulate


def violations(first_seed: int, count: int) -> list[Outcome]:
    """The seeds of a range in which a promise was broken."""
    quiet()
    outcomes = [simulate(seed) for seed in range(first_seed, first_seed + count)]
    return [outcome for outcome in outcomes if outcome.violation]


def first_violation(fault: str) -> Outcome:
    """The first seed that finds a planted fault, or the last that it may take."""
    quiet()
    with planted(fault):
        outcome = simulate(0)
        while not outcome.violation and outcome.seed + 1 < FAULTS[fault].seeds_max:
            outcome = simulate(outcome.seed + 1)
    return outcome
