"""What a request weighs and costs: the same for every client, so that truth is a matter of counting."""

from dataclasses import dataclass

WORDS = 200
TEXT = " ".join(f"w{number}" for number in range(WORDS))
PROMPT_TOKENS = WORDS + 4 + 3
OUTPUT_TOKENS = 40
"""What a request asks for, and gets unless its client leaves."""

LEFT_AFTER_TOKENS = 7
"""What a client that leaves has read by then. The engine pauses there, so its own count is exact."""


@dataclass(frozen=True, slots=True)
class Work:
    """What engines did for the clients of one budget."""

    requests: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.requests + other.requests, self.output_tokens + other.output_tokens)


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices in nano-USD: of an input token, of an output token, of a request."""

    name: str
    input_nanousd: int
    output_nanousd: int
    request_nanousd: int

    @property
    def need_nanousd(self) -> int:
        """What one request needs, its prompt counted exactly: no more is ever charged for it."""
        return self.cost_nanousd(Work(1, OUTPUT_TOKENS))

    def cost_nanousd(self, work: Work) -> int:
        """What the work costs."""
        of_each = PROMPT_TOKENS * self.input_nanousd + self.request_nanousd
        return work.requests * of_each + work.output_tokens * self.output_nanousd


TOKENS = Tariff("tokens", input_nanousd=1000, output_nanousd=2000, request_nanousd=0)
CALLS = Tariff("calls", input_nanousd=0, output_nanousd=0, request_nanousd=1_000_000)
TARIFFS = (TOKENS, CALLS)
