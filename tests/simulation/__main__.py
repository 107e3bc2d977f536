"""Replays a seed: `python -m tests.simulation --seed 7 --steps 40`."""

import argparse
import os
import sys

from tests.simulation.quiet import quiet
from tests.simulation.world import STEPS, simulate


def main() -> int:
    """Prints every step of one seed, or the failures of many."""
    parser = argparse.ArgumentParser(description="Replays a seed of the simulation.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from the first; only failures are shown")
    arguments = parser.parse_args()
    if sys.flags.hash_randomization:  # sets of strings have the same order in every run only with a fixed seed
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606 (ourselves)
    quiet()
    failed = 0
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        outcome = simulate(seed, arguments.steps, is_traced=arguments.seeds == 1)
        if outcome.violation or arguments.seeds == 1:
            sys.stdout.writelines(f"{line}\n" for line in outcome.trace)
            sys.stdout.write(f"seed {seed}, {arguments.steps} steps: {outcome.violation or 'every promise was kept'}\n")
        failed += bool(outcome.violation)
    sys.stdout.write(f"{failed} of {arguments.seeds} seeds failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
