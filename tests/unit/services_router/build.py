"""A small fleet, requests for it, and limits without a ledger behind them."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from enginehouse.router import (
    Capabilities,
    Chip,
    Jurisdictions,
    Load,
    Need,
    Policy,
    PolicyRule,
    PolicySet,
    Price,
    Principal,
    Replica,
    Request,
    Residency,
    View,
    When,
    by_deployment,
)
from enginehouse.router.limits import TOKENS, Limit
from enginehouse.services.router.affinity import Affinity
from enginehouse.services.router.deliberation import Deliberation
from enginehouse.services.router.lease_groups import Exhausted
from enginehouse.services.router.waiting import WaitingRoom
from enginehouse.v1 import common_pb2, inference_pb2, ledger_pb2

MODEL = "m"
LIMIT = "tokens"
PRINCIPAL = Principal("default", "acme", "p", "k")
JURISDICTIONS = Jurisdictions()
RETRY_AFTER_S = 7.0


def replica(number: int = 0, *, place: str | None = "eu/de", deployment: str = "d", price: int = 1000) -> Replica:
    """A replica of `MODEL`. Its context has 100,000 tokens, its outputs up to 1000."""
    return Replica(
        id=f"{deployment}-n{number}-0",
        deployment=deployment,
        model=MODEL,
        node=f"n{number}",
        address=f"127.0.0.1:{9000 + number}",
        node_address=f"127.0.0.1:{8000 + number}",
        served_model="served",
        place=JURISDICTIONS.place(place) if place else None,
        chip=Chip(common_pb2.CHIP_CLASS_GPU),
        capabilities=Capabilities(
            operations=frozenset({common_pb2.OPERATION_CHAT}),
            direct_dialects=frozenset({common_pb2.DIALECT_OPENAI}),
            context_tokens_max=100_000,
            output_tokens_max=1000,
        ),
        price=Price(price, price, price),
    )


def request(number: int = 0, *, prompt_bytes: int = 100, output: int = 100) -> Request:
    """A chat of `prompt_bytes` and at most `output` tokens."""
    return Request(
        id=f"r{number}",
        operation=common_pb2.OPERATION_CHAT,
        dialect=common_pb2.DIALECT_OPENAI,
        model=MODEL,
        principal=PRINCIPAL,
        prompt_text_bytes=prompt_bytes,
        message_count=1,
        output_tokens_max=output,
    )


def view(replicas: Iterable[Replica] = (), policy: Policy | None = None) -> View:
    """The fleet, one limit in tokens over the tenant, and one rule."""
    fleet = tuple(replicas) or (replica(),)
    rules = (PolicyRule("rule", When(), policy),) if policy is not None else ()
    return View(
        models={MODEL: tuple(sorted({one.deployment for one in fleet}))},
        replicas=by_deployment(fleet),
        policies=PolicySet(rules=rules, tenants=frozenset({PRINCIPAL.tenant_name})),
        limits=(Limit(LIMIT, PRINCIPAL.tenant_name, TOKENS, ledger_pb2.LIMIT_WINDOW_NONE, 10**9),),
        here=(JURISDICTIONS.place("eu/de"),),
    )


class Shares:
    """This router's share of each limit, and what the ledger still has: leases move from one to the other.

    Attributes:
        own: what the router may hold, by limit.
        ledger: what it may lease, by limit.
        asked: what it was asked to lease, in order.
    """

    def __init__(self, own: int = 0, ledger: int = 0) -> None:
        self.own = {LIMIT: own}
        self.ledger = {LIMIT: ledger}
        self.asked: list[dict[str, int]] = []

    def headroom(self, limit: str) -> int:
        """See `Leases`."""
        return self.own.get(limit, 0)

    async def acquire(self, needs: Sequence[Need]) -> Exhausted | None:
        """See `Leases`."""
        await asyncio.sleep(0)
        lacking = {need.limit: max(0, need.amount - self.headroom(need.limit)) for need in needs}
        self.asked.append(lacking)
        for limit, amount in lacking.items():
            if amount > self.ledger.get(limit, 0):
                return Exhausted(limit, self.ledger.get(limit, 0), 0, RETRY_AFTER_S)
        for limit, amount in lacking.items():
            self.ledger[limit] -= amount
            self.own[limit] += amount
        return None


class Tokenizers:
    """Counts what it is told to count; remembers who was asked.

    Attributes:
        tokens: of any prompt, by deployment.
        asked: the replicas that were sent a prompt, by id.
    """

    def __init__(self, tokens: Mapping[str, int] | None = None) -> None:
        self.tokens = tokens or {}
        self.asked: list[str] = []

    async def count(
        self,
        question: inference_pb2.CountTokensRequest,
        request: Request,
        replicas: tuple[Replica, ...],
        residency: tuple[Residency, ...],
    ) -> tuple[tuple[str, int], ...]:
        """See `Counts`."""
        await asyncio.sleep(0)
        self.asked += [one.id for one in replicas]
        return tuple((one.deployment, self.tokens[one.deployment]) for one in replicas if one.deployment in self.tokens)


def now_ms() -> int:
    """The running loop's clock."""
    return round(asyncio.get_running_loop().time() * 1000)


def deliberation(
    of: View,
    shares: Shares,
    *,
    tokenizers: Tokenizers | None = None,
    room: WaitingRoom | None = None,
    loads: Mapping[str, Load] | None = None,
    wait_ms_max: int = 1500,
) -> Deliberation:
    """A deliberation over `of`. It has to be made on a running loop."""
    made = Deliberation(
        allowances=shares,
        in_flight={},
        loads=loads or {},
        affinity=Affinity(now_ms=now_ms, make_key=lambda: b"k" * 32),
        counter=tokenizers or Tokenizers(),
        room=room or WaitingRoom(),
        wait_ms_max=wait_ms_max,
        now_ms=now_ms,
    )
    made.view = of
    return made
