"""Drops replicas on chips that are not wanted."""

from enginehouse.contract import Reason
from enginehouse.router.question import Option, Question
from enginehouse.v1.common_pb2 import ChipClass


class ChipFilter:
    """The replica's chip class must be allowed and not forbidden."""

    name = "chip"
    refusal = Reason.CHIP_NOT_FOUND

    def drop(self, option: Option, question: Question) -> str | None:
        """See `Filter`."""
        chip_class = option.replica.chip.chip_class
        policy = question.policy
        if chip_class in policy.chips_forbidden:
            return f"runs on {_name(chip_class)}, which is forbidden"
        if policy.chips_allowed is not None and chip_class not in policy.chips_allowed:
            wanted = " or ".join(sorted(_name(allowed) for allowed in policy.chips_allowed)) or "no chip at all"
            return f"runs on {_name(chip_class)}; required is {wanted}"
        return None


def _name(chip_class: ChipClass.ValueType) -> str:
    return ChipClass.Name(chip_class).removeprefix("CHIP_CLASS_").lower()
