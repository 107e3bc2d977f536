"""What work costs. Money is int64 nano-USD and every rounding is upwards, once per request."""

from dataclasses import dataclass

from enginehouse.v1 import common_pb2

NANOUSD_PER_USD = 1_000_000_000
_PER_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Prices in nano-USD: per million tokens of each kind, and per request."""

    input_nanousd_per_million_tokens: int
    cached_input_nanousd_per_million_tokens: int
    output_nanousd_per_million_tokens: int
    request_nanousd: int = 0

    def cost_nanousd(self, input_tokens: int, output_tokens: int, cached_input_tokens: int = 0) -> int:
        """The cost of one request, rounded up to a whole nano-USD.

        Args:
            input_tokens: of the whole prompt, cached part included.
            output_tokens: generated, over all choices.
            cached_input_tokens: the part of `input_tokens` that came from a prefix cache.
        """
        per_million = (
            (input_tokens - cached_input_tokens) * self.input_nanousd_per_million_tokens
            + cached_input_tokens * self.cached_input_nanousd_per_million_tokens
            + output_tokens * self.output_nanousd_per_million_tokens
        )
        return -(-per_million // _PER_MILLION) + self.request_nanousd

    def most_nanousd(self, input_tokens: int, output_tokens: int) -> int:
        """The most that a request can cost, whatever a cache serves of it: that is cheaper, but nothing makes it so."""
        is_dearer = self.cached_input_nanousd_per_million_tokens > self.input_nanousd_per_million_tokens
        return self.cost_nanousd(input_tokens, output_tokens, input_tokens if is_dearer else 0)

    @classmethod
    def from_message(cls, message: common_pb2.Price) -> "Price":
        """The price of a `v1.Price`. A cached token without a price of its own costs what any input token costs."""
        return cls(
            message.input_nanousd_per_million_tokens,
            message.cached_input_nanousd_per_million_tokens or message.input_nanousd_per_million_tokens,
            message.output_nanousd_per_million_tokens,
            message.request_nanousd,
        )

    def to_message(self) -> common_pb2.Price:
        """The price as `v1.Price`."""
        return common_pb2.Price(
            input_nanousd_per_million_tokens=self.input_nanousd_per_million_tokens,
            cached_input_nanousd_per_million_tokens=self.cached_input_nanousd_per_million_tokens,
            output_nanousd_per_million_tokens=self.output_nanousd_per_million_tokens,
            request_nanousd=self.request_nanousd,
        )


def hourly_price(nanousd_per_hour: int, input_tokens_per_second: int, output_tokens_per_second: int) -> Price:
    """The price of a self-hosted replica: what its machine costs in an hour over what it can do in an hour.

    A machine that does nothing but read prompts, or nothing but write, earns exactly its cost.

    Raises:
        ValueError: a cost or a rate is not positive; a machine is never free and its rate never unknown.
    """
    if min(nanousd_per_hour, input_tokens_per_second, output_tokens_per_second) <= 0:
        raise ValueError("an hourly price needs a positive cost and positive token rates")
    return Price(
        _per_million(nanousd_per_hour, input_tokens_per_second),
        _per_million(nanousd_per_hour, input_tokens_per_second),
        _per_million(nanousd_per_hour, output_tokens_per_second),
    )


def _per_million(nanousd_per_hour: int, tokens_per_second: int) -> int:
    return -(-nanousd_per_hour * _PER_MILLION // (3600 * tokens_per_second))
