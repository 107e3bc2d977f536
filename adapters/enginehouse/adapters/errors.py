"""What every dialect's error encoder gives, and what they share."""

import math
from dataclasses import dataclass

from enginehouse.contract import EnginehouseError

JSON_TYPE = ("content-type", "application/json")


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """A whole HTTP answer.

    Attributes:
        headers: names in lower case, `content-type` among them.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def content_type(self) -> str:
        """The header `content-type`."""
        return dict(self.headers)["content-type"]


def retry_headers(error: EnginehouseError) -> tuple[tuple[str, str], ...]:
    """`retry-after` in whole seconds (RFC 9110, 10.2.3), when waiting may help."""
    if error.retry_after_s is None:
        return ()
    return (("retry-after", str(max(0, math.ceil(error.retry_after_s)))),)
