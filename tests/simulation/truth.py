"""What really happened, whoever forgot it since: every request that an engine worked on, and what it used."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from enginehouse.router import Price, Request
from enginehouse.router.limits import IN_FLIGHT, REQUESTS, TOKENS, USD
from enginehouse.v1 import router_pb2
from tests.simulation.scene import cost_nanousd


@dataclass(slots=True)
class Admission:
    """One router's answer to a request: it holds. Two routers may hold for one request; Envoy uses one answer."""

    router: str
    ticket: router_pb2.Ticket


@dataclass(slots=True)
class Work:
    """A request that Envoy sent to an engine.

    Attributes:
        ticket: under which it runs.
        envoy: the start of Envoy that carries it.
        replica: that works on it.
        input_tokens, output_tokens: used so far; final once `is_running` is False.
        is_counted: the log says how much was used.
        is_lost: Envoy died with it, so no log will ever tell.
        is_entry_lost: the prompt entry did not reach the owner.
    """

    request: Request
    ticket: router_pb2.Ticket
    envoy: str
    replica: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    is_running: bool = False
    is_ended: bool = False
    is_counted: bool = False
    is_lost: bool = False
    is_entry_lost: bool = False
    prices: dict[str, Price] = field(default_factory=dict)

    def used(self, hold: router_pb2.Hold) -> int:
        """What it really used of a limit that it holds in, in the limit's unit."""
        if hold.unit == IN_FLIGHT:
            return 1 if self.is_running else 0
        if not self.replica:
            return 0
        amounts = {
            USD: cost_nanousd(self.prices[self.replica], self.input_tokens, self.output_tokens),
            TOKENS: self.input_tokens + self.output_tokens,
            REQUESTS: 1,
        }
        return amounts[hold.unit]

    def exposure(self, hold: router_pb2.Hold) -> int:
        """What it may come to: all of its hold while it runs, and afterwards what it used."""
        return hold.amount if self.is_running else self.used(hold)


class Truth:
    """Every request's admissions and work."""

    def __init__(self) -> None:
        self.admissions: dict[str, list[Admission]] = {}
        self.works: dict[str, Work] = {}

    def admitted(self, router: str, ticket: router_pb2.Ticket) -> None:
        """A router holds."""
        self.admissions.setdefault(ticket.request_id, []).append(Admission(router, ticket))

    def begins(self, work: Work) -> None:
        """Envoy goes on with a request."""
        self.works[work.request.id] = work

    def running(self) -> Iterable[Work]:
        """What engines work on now."""
        return (work for work in self.works.values() if work.is_running)

    def exposures(self) -> Iterator[tuple[str, int]]:
        """By allowance id: what requests in it used or may yet use."""
        for work in self.works.values():
            for hold in work.ticket.holds:
                amount = work.exposure(hold)
                if amount:
                    yield hold.allowance, amount

    def held_by(self, request_id: str, allowance: str) -> int:
        """The most that any admission of the request holds in the allowance."""
        return max(
            (
                hold.amount
                for admission in self.admissions.get(request_id, ())
                for hold in admission.ticket.holds
                if hold.allowance == allowance
            ),
            default=0,
        )
