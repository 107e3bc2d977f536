"""Drops replicas on chips that are not wanted."""

from enginehouse.contract import Reason
from enginehouse.router.chip import chip_class_name
from enginehouse.router.filters.filter import Kind
from enginehouse.router.replica import Replica


class ChipFilter:
    """The replica's chip must match every rule that is required, and none that is forbidden."""

    name = "chip"
    refusal = Reason.CHIP_NOT_FOUND

    def drop(self, replica: Replica, kind: Kind) -> str | None:
        """See `Filter`."""
        for rule in kind.policy.chips_forbidden:
            if rule.matches(replica.chip):
                return f"runs on {_described(replica)}; forbidden is: {rule}"
        for rule in kind.policy.chips_required:
            if not rule.matches(replica.chip):
                return f"runs on {_described(replica)}; required is: {rule}"
        return None


def _described(replica: Replica) -> str:
    chip = replica.chip
    return " ".join(part for part in (chip_class_name(chip.chip_class), chip.vendor, chip.model) if part)
