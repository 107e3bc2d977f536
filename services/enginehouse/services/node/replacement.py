"""How far a node is with replacing the replicas of a deployment, told once for each step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from enginehouse.engines import FAILED, READY
from enginehouse.services.node.rolling import Standing


class Step(StrEnum):
    """What events about a replacement tell."""

    BEGAN = "began"
    """Replicas run an older revision, and are going to be replaced."""
    WAITING = "waiting"
    """Before the next one can be replaced, something else has to happen."""
    WITHOUT_ROOM = "without_room"
    """The host has no room for both: a replica leaves before its successor is there."""
    FAILED = "failed"
    """The newer revision cannot be started here. What runs stays as it is."""
    COMPLETED = "completed"
    """Every replica runs the newer revision and is ready, and nothing older is left."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A step of a replacement.

    Attributes:
        revision: the one that is to be reached.
        old, new: ids of the replicas that run an older one, and of those that run this one.
    """

    step: Step
    deployment: str
    revision: int
    reason: str
    old: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


@dataclass(slots=True)
class _Told:
    revision: int
    steps: set[tuple[Step, str]] = field(default_factory=set)


class ReplacementTeller:
    """Tells each step of each replacement once.

    Args:
        tell: takes the steps, in order. It must neither block nor raise.
    """

    def __init__(self, tell: Callable[[Replacement], None]) -> None:
        self._tell = tell
        self._told: dict[str, _Told] = {}

    def look(self, deployment: str, revision: int, count: int, replicas: Sequence[Standing]) -> None:
        """Tells what can be seen: that a replacement began, that it failed, that it is complete."""
        old = [one for one in replicas if not one.fits]
        if old:
            self.say(Step.BEGAN, deployment, revision, "the engine's settings are others now", replicas)
        for one in replicas:
            if old and one.fits and one.state == FAILED:
                reason = f"{one.id} failed: {one.reason}; what runs stays"
                self.say(Step.FAILED, deployment, revision, reason, replicas)
        ready = [one for one in replicas if one.fits and one.state == READY]
        if not old and len(ready) == len(replicas) == count and self._told.pop(deployment, None) is not None:
            done = Replacement(Step.COMPLETED, deployment, revision, "every replica is ready", (), _ids(ready))
            self._tell(done)

    def say(self, step: Step, deployment: str, revision: int, reason: str, replicas: Sequence[Standing]) -> None:
        """Tells one step, unless it was told for that revision and reason already."""
        told = self._told.get(deployment)
        if told is None or told.revision != revision:
            told = self._told[deployment] = _Told(revision)
        if (step, reason) not in told.steps:
            told.steps.add((step, reason))
            old, new = [one for one in replicas if not one.fits], [one for one in replicas if one.fits]
            self._tell(Replacement(step, deployment, revision, reason, _ids(old), _ids(new)))

    def forget(self, deployment: str) -> None:
        """The deployment is not placed here any more."""
        self._told.pop(deployment, None)


def _ids(replicas: Sequence[Standing]) -> tuple[str, ...]:
    return tuple(one.id for one in replicas)
