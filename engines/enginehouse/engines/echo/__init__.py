"""The echo engine: deterministic, without a model, instant."""

from enginehouse.engines.echo.descriptor import EchoEngine

__all__ = ["EchoEngine"]
