"""Sampling as the services' messages can hold it."""

from typing import TypeVar

from enginehouse.adapters._fields import unsupported
from enginehouse.adapters._token_engine.dialect import SamplingDefaults
from enginehouse.v1 import inference_pb2

_Value = TypeVar("_Value", int, float)
_ALL_TOKENS = -1


def check_seed(sampling: inference_pb2.Sampling, minimum: int, maximum: int, engine: str) -> None:
    """Refuses a seed that the service has no room for.

    Raises:
        RequestError: UNSUPPORTED_FIELD.
    """
    if not minimum <= sampling.seed <= maximum:
        raise unsupported("sampling.seed", f"the engine {engine} takes seeds from {minimum} to {maximum}")


def check_top_k(sampling: inference_pb2.Sampling, engine: str) -> None:
    """Refuses a negative number of candidates that is not -1, all of them.

    Raises:
        RequestError: UNSUPPORTED_FIELD.
    """
    if sampling.top_k < _ALL_TOKENS:
        raise unsupported("sampling.top_k", f"the engine {engine} takes a number above 0, or 0 for all tokens")


def top_k_of(sampling: inference_pb2.Sampling, defaults: SamplingDefaults) -> int:
    """The number of candidates; 0 for all tokens."""
    return max(0, sampling.top_k if sampling.HasField("top_k") else chosen(defaults.top_k, 0))


def chosen(default: _Value | None, otherwise: _Value) -> _Value:
    """What the model's author wants, if anything."""
    return otherwise if default is None else default
