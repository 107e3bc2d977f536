"""What the simulated mesh consists of: tenants, limits, replicas and rules, drawn from the seed."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from enginehouse.router import (
    Capabilities,
    Chip,
    Hints,
    Jurisdictions,
    Policy,
    PolicyRule,
    PolicySet,
    Price,
    Principal,
    Replica,
    Request,
    Residency,
    TightBudget,
    View,
    When,
    by_deployment,
)
from enginehouse.router.limits import IN_FLIGHT, REQUESTS, TOKENS, USD, Limit
from enginehouse.v1 import common_pb2, ledger_pb2

MODEL = "m"
ORGANIZATION = "default"
EPOCH_MS = 1_774_745_988_000
"""2026-03-29 00:59:48 UTC: a minute, an hour and then Berlin's change of clocks are twelve seconds away."""

DIRECT, ADAPTER = common_pb2.LANE_DIRECT, common_pb2.LANE_ADAPTER
NONE, MINUTE, HOUR = ledger_pb2.LIMIT_WINDOW_NONE, ledger_pb2.LIMIT_WINDOW_MINUTE, ledger_pb2.LIMIT_WINDOW_HOUR

WITHIN: Mapping[str, frozenset[str]] = {
    "eu/de": frozenset({"de", "eu", "eea"}),
    "fr": frozenset({"fr", "eu", "eea"}),
    "ch": frozenset({"ch", "efta"}),
    "us/va": frozenset({"us", "us/va"}),
}
"""Which jurisdictions a place is in, written down by hand: the truth that the core is checked against."""

PRINCIPALS = (
    Principal(ORGANIZATION, "acme", "p1", "k1"),
    Principal(ORGANIZATION, "acme", "p1", "k2"),
    Principal(ORGANIZATION, "beta", "p1", "k3"),
)
_JURISDICTIONS = Jurisdictions()
_INPUT_PRICES = (1_000, 2_000)
_PER_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Rules:
    """Where each tenant's data may be: jurisdictions by tenant. An empty set allows every labelled place."""

    allow: Mapping[str, frozenset[str]]

    def permits(self, tenant: str, hint: frozenset[str], place: str) -> bool:
        """Whether a request of `tenant` with this hint may be at `place`."""
        within = WITHIN.get(place)
        if within is None:
            return False
        allowed = self.allow[tenant]
        return bool(not allowed or allowed & within) and bool(not hint or hint & within)


@dataclass(frozen=True, slots=True)
class Scene:
    """What the world begins with."""

    replicas: tuple[Replica, ...]
    limits: tuple[Limit, ...]
    rules: Rules
    on_tight_budget: TightBudget

    def view(self, rules: Rules, limits: tuple[Limit, ...], away: frozenset[str]) -> View:
        """What a router is to know.

        Args:
            rules: in force.
            limits: in force.
            away: nodes that are not registered.
        """
        policies = [
            PolicyRule(
                f"{tenant}'s places",
                When(principals=frozenset({f"organizations/{ORGANIZATION}/tenants/{tenant}"})),
                Policy(residency=(Residency(allow=allowed),) if allowed else ()),
            )
            for tenant, allowed in rules.allow.items()
        ]
        tight = PolicyRule("tight", When(), Policy(on_tight_budget=self.on_tight_budget, wait_ms=500))
        present = [replica for replica in self.replicas if replica.node not in away]
        replicas = by_deployment(present)
        return View(
            fleet_version="f",
            policy_version="p",
            models={MODEL: tuple(sorted({replica.deployment for replica in self.replicas}))},
            replicas=replicas,
            policies=PolicySet(
                (*policies, tight), tenants=frozenset(principal.tenant_name for principal in PRINCIPALS)
            ),
            limits=limits,
        )


def draw_scene(rng: random.Random) -> Scene:
    """A scene of two to five replicas and one limit of each unit or more."""
    replicas = tuple(_replica(rng, number) for number in range(rng.randint(2, 5)))
    rules = Rules({"acme": rng.choice((frozenset({"eu"}), frozenset({"de"}))), "beta": frozenset()})
    tight = rng.choice((TightBudget.REFUSE, TightBudget.REFUSE, TightBudget.CLAMP))
    return Scene(replicas, _limits(rng), rules, tight)


def draw_request(rng: random.Random, request_id: str) -> Request:
    """A request of anybody for the model."""
    hint = frozenset({rng.choice(("eu", "de", "ch", "us"))}) if rng.random() < 0.3 else frozenset()
    return Request(
        id=request_id,
        operation=common_pb2.OPERATION_CHAT,
        dialect=common_pb2.DIALECT_OPENAI,
        model=MODEL,
        principal=rng.choice(PRINCIPALS),
        is_stream=True,
        prompt_text_bytes=rng.randint(5, 40),
        message_count=1,
        output_tokens_max=rng.randint(5, 60),
        choices=rng.choice((1, 1, 1, 2)),
        hints=Hints(residency=hint),
    )


def input_tokens_most(replica: Replica, request: Request) -> int:
    """The most tokens that a prompt can be on a replica: a token for each byte, and the template's."""
    can = replica.capabilities
    return request.prompt_text_bytes + can.template_tokens + can.message_tokens * request.message_count


def cost_nanousd(price: Price, input_tokens: int, output_tokens: int) -> int:
    """What work costs: whole nano-USD per token here, so that there is nothing to round."""
    return (
        input_tokens * (price.input_nanousd_per_million_tokens // _PER_MILLION)
        + output_tokens * (price.output_nanousd_per_million_tokens // _PER_MILLION)
        + price.request_nanousd
    )


def another_cap(rng: random.Random, limit: Limit) -> Limit:
    """The limit with its cap raised, or lowered far enough to be below what is spent."""
    factor = rng.choice((0.05, 0.3, 0.7, 1.5, 3))
    return replace(limit, cap=max(1, round(limit.cap * factor)))


def _replica(rng: random.Random, number: int) -> Replica:
    place = rng.choice((*WITHIN, "eu/de", "fr", "atlantis", "")) if number else "eu/de"
    input_price = rng.choice(_INPUT_PRICES) * _PER_MILLION
    return Replica(
        id=f"r{number}",
        deployment=f"d{number % 2}",
        model=MODEL,
        node=f"n{number}",
        address=f"10.0.0.{number}:9000",
        node_address=f"10.0.0.{number}:8000",
        served_model="served",
        place=_JURISDICTIONS.place_or_nowhere(place),
        chip=Chip(common_pb2.CHIP_CLASS_GPU),
        capabilities=Capabilities(
            operations=frozenset({common_pb2.OPERATION_CHAT}),
            features=frozenset({common_pb2.FEATURE_STREAM}),
            direct_dialects=frozenset({common_pb2.DIALECT_OPENAI}),
            context_tokens_max=4096,
            output_tokens_max=256,
            template_tokens=rng.randint(0, 20),
            message_tokens=3,
        ),
        price=Price(input_price, input_price, 3 * input_price, rng.choice((0, 500))),
        forced_lane=rng.choice((common_pb2.LANE_UNSPECIFIED, ADAPTER)),
        in_flight_max=rng.choice((2, 64)),
        parallel=4,
    )


def _limits(rng: random.Random) -> tuple[Limit, ...]:
    tenant = f"organizations/{ORGANIZATION}/tenants/acme"
    requests = rng.choice((6, 12, 40))
    candidates = (
        Limit("usd", f"organizations/{ORGANIZATION}", USD, rng.choice((NONE, HOUR)), requests * 120_000),
        Limit("tokens", tenant, TOKENS, rng.choice((MINUTE, NONE)), requests * 60, "Europe/Berlin"),
        Limit("requests", f"{tenant}/projects/p1", REQUESTS, rng.choice((MINUTE, NONE)), requests),
        Limit("slots", f"{tenant}/projects/p1/keys/k1", IN_FLIGHT, NONE, rng.randint(1, 4)),
        Limit("model", f"models/{MODEL}", rng.choice((USD, TOKENS)), NONE, requests * rng.choice((60, 100_000))),
        Limit("deployment", "deployments/d0", REQUESTS, NONE, requests),
    )
    return tuple(limit for limit in candidates if rng.random() < 0.75) or candidates[:1]
