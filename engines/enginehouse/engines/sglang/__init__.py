"""SGLang, by its own module."""

from enginehouse.engines.sglang.descriptor import SglangEngine

__all__ = ["SglangEngine"]
