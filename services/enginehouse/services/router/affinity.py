"""Which replicas have lately read which beginnings of prompts, so that their key-value caches are used again.

Only keyed hashes are kept: of blocks of text, each over all blocks before it. The key is made by this process, never
leaves it, and is replaced now and then; what was hashed with the old one is forgotten with it.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b

BLOCK_BYTES = 256
BLOCKS_MAX = 32
KNOWN_MAX = 32_768
"""Blocks that are remembered at once: about 20 MB."""
REPLICAS_MAX = 16
"""Replicas that are remembered for one block: those that read it last."""
ROTATE_MS = 3_600_000
_HASH_BYTES = 16
_KEY_BYTES = 32


class Affinity:
    """A memory of bounded size; what was used least lately is forgotten first.

    Args:
        now_ms: a clock that never jumps, in milliseconds.
        make_key: makes a secret key of 32 bytes.
        known_max: blocks to remember at most.
    """

    def __init__(
        self,
        *,
        now_ms: Callable[[], int],
        make_key: Callable[[], bytes] = lambda: secrets.token_bytes(_KEY_BYTES),
        known_max: int = KNOWN_MAX,
    ) -> None:
        self._now_ms = now_ms
        self._make_key = make_key
        self._known_max = known_max
        self._readers: OrderedDict[bytes, dict[str, None]] = OrderedDict()
        self._key = make_key()
        self._key_made_ms = now_ms()

    def blocks(self, owner: str, beginning: bytes) -> tuple[bytes, ...]:
        """The hashes of a prompt's whole blocks, at most 32.

        Args:
            owner: whose prompt it is, for which model. Nobody learns from a match that another owner sent the same.
            beginning: the first bytes of the prompt's text.
        """
        self._rotate()
        hashes: list[bytes] = []
        last = owner.encode()
        for start in range(0, min(len(beginning) // BLOCK_BYTES, BLOCKS_MAX) * BLOCK_BYTES, BLOCK_BYTES):
            last = blake2b(
                len(last).to_bytes(4) + last + beginning[start : start + BLOCK_BYTES],
                key=self._key,
                digest_size=_HASH_BYTES,
            ).digest()
            hashes.append(last)
        return tuple(hashes)

    def matches(self, blocks: Sequence[bytes]) -> dict[str, int]:
        """By replica id, how many of these first blocks in a row it has read lately."""
        counts: dict[str, int] = {}
        for number, block in enumerate(blocks):
            readers = self._readers.get(block)
            if not readers:
                break
            for replica in readers:
                if counts.get(replica, 0) == number:
                    counts[replica] = number + 1
        return counts

    def remember(self, replica: str, blocks: Sequence[bytes]) -> None:
        """Notes that `replica` reads a prompt that begins with these blocks."""
        # From the last to the first: of one prompt, the end is forgotten before the beginning.
        for block in reversed(blocks):
            readers = self._readers.setdefault(block, {})
            self._readers.move_to_end(block)
            readers.pop(replica, None)
            readers[replica] = None
            if len(readers) > REPLICAS_MAX:
                del readers[next(iter(readers))]
        while len(self._readers) > self._known_max:
            self._readers.popitem(last=False)

    @property
    def known(self) -> int:
        """How many blocks are remembered."""
        return len(self._readers)

    def _rotate(self) -> None:
        if self._now_ms() - self._key_made_ms >= ROTATE_MS:
            self._key, self._key_made_ms = self._make_key(), self._now_ms()
            self._readers.clear()
