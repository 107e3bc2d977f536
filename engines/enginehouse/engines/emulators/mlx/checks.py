"""What mlx_lm.server checks of a body before it looks at the prompt (mlx_lm/server.py, 0.32.2), in its order."""

from collections.abc import Mapping
from dataclasses import dataclass

_NUMBER = (float, int)


@dataclass(frozen=True, slots=True)
class _Check:
    """One member.

    Attributes:
        types: one of which it has to be. A true or false passes for an int, as in Python.
        least, most: its bounds. None: there is none.
        default: where the body does not have it.
        said: what messages call it; empty: the member's name.
    """

    member: str
    types: tuple[type, ...]
    default: object
    least: float | None = None
    most: float | None = None
    said: str = ""

    def refusal(self, body: Mapping[str, object]) -> str | None:
        """What is wrong with the member, if anything is."""
        name, value = self.said or self.member, body.get(self.member, self.default)
        if not isinstance(value, self.types):
            names = tuple(kind.__name__ for kind in self.types if kind is not type(None))
            return f"{name} must be of type {names[0] if len(names) == 1 else names}"
        if isinstance(value, int | float):
            if self.least is not None and value < self.least:
                return f"{name} must be at least {self.least:g}"
            if self.most is not None and value > self.most:
                return f"{name} must be at most {self.most:g}"
        return None


_CHECKS = (
    _Check("stream", (bool,), default=False),
    _Check("max_tokens", (int,), default=1, least=1),
    _Check("temperature", _NUMBER, default=0.0, least=0),
    _Check("top_p", _NUMBER, default=1.0, least=0, most=1),
    _Check("top_k", (int,), default=0, least=0),
    _Check("min_p", _NUMBER, default=0.0, least=0, most=1),
    _Check("repetition_penalty", _NUMBER, default=0.0, least=0),
    _Check("presence_penalty", _NUMBER, default=0.0),
    _Check("frequency_penalty", _NUMBER, default=0.0),
    _Check("logprobs", (bool,), default=False),
    _Check("top_logprobs", (int,), default=0, least=-1, most=11),
    _Check("model", (str,), default="", said="requested_model"),
    _Check("seed", (int, type(None)), default=None),
    _Check("logit_bias", (dict, type(None)), default=None),
)


def refusal(body: Mapping[str, object]) -> str | None:
    """What it says against the body, if it does. `max_completion_tokens` wins over `max_tokens`, and is called so."""
    limit = body.get("max_completion_tokens")
    given = body if limit is None else {**body, "max_tokens": limit}
    return next((found for check in _CHECKS if (found := check.refusal(given)) is not None), None)
