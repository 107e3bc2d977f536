"""Embeddings and relevance without a model: the same text always gets the same numbers."""

import base64
import hashlib
import math
import struct

from enginehouse.engines.echo._tokens import tokens_of


def embed(text: str, dimensions: int) -> list[float]:
    """A unit vector drawn from a hash of `text`. Different texts are almost at right angles."""
    digest = hashlib.shake_256(text.encode()).digest(4 * dimensions)
    raw = [number / 2**31 - 1.0 for number in struct.unpack(f"<{dimensions}I", digest)]
    length = math.hypot(*raw) or 1.0
    return [value / length for value in raw]


def as_base64(vector: list[float]) -> str:
    """Little-endian 32-bit floats in base64, OpenAI's other encoding."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def relevance(query: str, document: str) -> float:
    """Share of words that the two have in common (Jaccard), 0 to 1."""
    left, right = _words(query), _words(document)
    return len(left & right) / len(left | right) if left | right else 0.0


def _words(text: str) -> set[str]:
    return {token.strip().casefold() for token in tokens_of(text)} - {""}
