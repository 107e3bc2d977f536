"""What supervision asks of an engine's dialect. Services inject it: engines and adapters know nothing of each other."""

from collections.abc import Collection
from typing import Protocol

from enginehouse.v1 import common_pb2


class Readiness(Protocol):
    """What the first answer of an engine taught us."""

    @property
    def template_tokens(self) -> int:
        """Tokens that the chat template adds to a conversation of one message, or to one text that is embedded."""
        ...

    @property
    def message_tokens(self) -> int:
        """Tokens that each further message, or text, adds at most."""
        ...


class Prober(Protocol):
    """Speaks an engine's dialect, just enough to learn whether it works.

    Both methods raise `EnginehouseError` when it does not; both are cancelled when they take too long. `operations` are
    those that the engine declares: one that generates is asked for one token, one that embeds for one embedding.
    """

    async def probe_ready(
        self, address: str, served_model: str, operations: Collection[common_pb2.Operation.ValueType]
    ) -> Readiness:
        """Makes the engine at `address` (host:port) generate one token, and measures its template."""
        ...

    async def probe_live(
        self, address: str, served_model: str, operations: Collection[common_pb2.Operation.ValueType]
    ) -> None:
        """Makes the engine at `address` (host:port) generate one token."""
        ...
