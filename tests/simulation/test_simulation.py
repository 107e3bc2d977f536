"""The promises hold in every world that the seeds draw, and no planted fault escapes."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.simulation.mutations import FAULTS
from tests.simulation.runs import first_violation, violations
from tests.simulation.world import STEPS, Outcome

SEEDS = 2000
_SEEDS_AT_ONCE = 50


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    """Processes of their own, one for each core: simulations configure logging, and keep one engine."""
    spawn = multiprocessing.get_context("spawn")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONHASHSEED", "0")  # a seed is one world only if sets of strings have one order
        with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=spawn) as pool:
            yield pool


def test_every_promise_is_kept_in_every_seed(workers: ProcessPoolExecutor) -> None:
    starts = range(0, SEEDS, _SEEDS_AT_ONCE)
    found = [outcome for part in workers.map(violations, starts, [_SEEDS_AT_ONCE] * len(starts)) for outcome in part]
    assert not found, "\n".join(_told(outcome) for outcome in found[:5])


def test_every_planted_fault_is_found(workers: ProcessPoolExecutor) -> None:
    found = dict(zip(FAULTS, workers.map(first_violation, FAULTS), strict=True))
    escaped = [f"{name} ({FAULTS[name].breaks})" for name, outcome in found.items() if not outcome.violation]
    assert not escaped, f"not found: {', '.join(escaped)}"


def test_a_seed_is_the_same_world_every_time() -> None:
    first, second = _replayed(seed=11), _replayed(seed=11)
    assert "q20" in first
    assert first == second


def _replayed(*, seed: int) -> str:
    command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed), "--steps", "40"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def _told(outcome: Outcome) -> str:
    trace = "\n".join(outcome.trace)
    return (
        f"seed {outcome.seed}: {outcome.violation}\n{trace}\n"
        f"replay it with: make simulate SEED={outcome.seed} STEPS={STEPS}"
    )
