"""Engines that somebody else runs."""

from enginehouse.engines.external.descriptor import ExternalEngine

__all__ = ["ExternalEngine"]
