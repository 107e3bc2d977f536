"""What every object of one answer says of itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """Made once per answer; the clock and the ids are the caller's.

    Attributes:
        id: like ``chatcmpl-...`` or ``msg_...``.
        model: the name that the client asked for.
        created_s: Unix time in seconds; Anthropic has no place for it.
    """

    id: str
    model: str
    created_s: int = 0
