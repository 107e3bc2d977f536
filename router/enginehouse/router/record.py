"""Decisions as messages: what is logged, streamed, explained, and carried past the router. Never a prompt."""

from collections.abc import Iterable, Sequence

from google.protobuf import duration_pb2, timestamp_pb2

from enginehouse.router.chip import Chip
from enginehouse.router.decision import Decision, Refused, Verdict
from enginehouse.router.jurisdiction import Residency
from enginehouse.router.limits import Held, Limit
from enginehouse.router.replica import Replica
from enginehouse.router.request import Hints, Principal, Request
from enginehouse.router.scorers import SCORERS
from enginehouse.router.view import View
from enginehouse.v1 import common_pb2, ledger_pb2, router_pb2


def request_from_message(message: router_pb2.RoutingRequest) -> Request:
    """Reads a request. Its residency hint must be spelled as `Jurisdictions` spells."""
    hints = message.hints
    return Request(
        id=message.request_id,
        operation=message.operation,
        dialect=message.dialect,
        model=message.model,
        principal=principal_from_message(message.principal),
        is_stream=message.stream,
        features=frozenset(message.features),
        prompt_text_bytes=message.prompt_text_bytes,
        message_count=message.message_count,
        image_count=message.image_count,
        output_tokens_max=message.output_tokens_max if message.HasField("output_tokens_max") else None,
        choices=max(1, message.choices),
        input_count=max(1, message.input_count),
        prompt_tokens=tuple((count.deployment, count.tokens) for count in message.prompt_tokens),
        prefix_blocks=message.prefix_blocks,
        hints=Hints(
            residency=frozenset(hints.residency),
            chip=hints.chip,
            quality=hints.quality,
            price_nanousd_max=hints.price_nanousd_max or None,
            session=hints.session,
        ),
    )


def request_to_message(request: Request) -> router_pb2.RoutingRequest:
    """Writes a request; equal requests give equal bytes."""
    hints = request.hints
    return router_pb2.RoutingRequest(
        request_id=request.id,
        operation=request.operation,
        dialect=request.dialect,
        model=request.model,
        principal=principal_to_message(request.principal),
        stream=request.is_stream,
        features=sorted(request.features),
        prompt_text_bytes=request.prompt_text_bytes,
        message_count=request.message_count,
        image_count=request.image_count,
        output_tokens_max=request.output_tokens_max,
        choices=request.choices,
        input_count=request.input_count,
        prompt_tokens=[
            router_pb2.PromptTokens(deployment=deployment, tokens=tokens)
            for deployment, tokens in request.prompt_tokens
        ],
        prefix_blocks=request.prefix_blocks,
        hints=common_pb2.Hints(
            residency=sorted(hints.residency),
            chip=hints.chip,
            quality=hints.quality,
            price_nanousd_max=hints.price_nanousd_max or 0,
            session=hints.session,
        ),
    )


def principal_from_message(message: router_pb2.Principal) -> Principal:
    """Reads a principal."""
    return Principal(message.organization, message.tenant, message.project, message.key)


def principal_to_message(principal: Principal) -> router_pb2.Principal:
    """Writes a principal."""
    return router_pb2.Principal(
        organization=principal.organization, tenant=principal.tenant, project=principal.project, key=principal.key
    )


def residency_to_messages(rules: Iterable[Residency]) -> list[router_pb2.Residency]:
    """Writes rules that must all hold."""
    return [router_pb2.Residency(allow=sorted(rule.allow), deny=sorted(rule.deny)) for rule in rules]


def residency_from_messages(messages: Iterable[router_pb2.Residency]) -> tuple[Residency, ...]:
    """Reads rules that must all hold."""
    return tuple(Residency(frozenset(message.allow), frozenset(message.deny)) for message in messages)


def decision_to_message(
    decision: Decision,
    *,
    decision_id: str,
    request: Request,
    view: View,
    held: Sequence[Held] = (),
    verdicts: Sequence[Verdict] = (),
    decided_at_ms: int,
) -> router_pb2.Decision:
    """Writes a decision in full.

    Args:
        decision: the outcome.
        decision_id: its name.
        request, view: what it was made on.
        held: what was really held for it; empty for an explanation, and the amounts it would hold are given instead.
        verdicts: of every candidate; left out where nobody asked for them, because they take time.
        decided_at_ms: Unix milliseconds.
    """
    units = {limit.id: limit for limit in view.limits}
    holds = held_to_messages(held, units) or [
        router_pb2.Hold(limit=limit, unit=units[limit].unit, amount=amount) for limit, amount in decision.holds.items()
    ]
    message = router_pb2.Decision(
        id=decision_id,
        request=request_to_message(request),
        lane=decision.lane,
        attempts=[_attempt(replica, decision.lane) for replica in decision.attempts],
        holds=holds,
        candidates=[_candidate(verdict) for verdict in verdicts],
        input_tokens_max=decision.bounds.input_tokens,
        output_tokens_max=decision.bounds.output_tokens // request.choices,
        residency=residency_to_messages(decision.residency),
        fleet_version=view.fleet_version,
        policy_version=view.policy_version,
        decided_at=timestamp(decided_at_ms),
    )
    if decision.refused:
        message.refusal.CopyFrom(refusal_to_message(decision.refused))
    return message


def ticket(decision: router_pb2.Decision, *, router: str, fence: int, router_address: str) -> router_pb2.Ticket:
    """What an admitted request carries past the router, from its recorded decision."""
    request = decision.request
    return router_pb2.Ticket(
        request_id=request.request_id,
        decision_id=decision.id,
        router=router,
        fence=fence,
        router_address=router_address,
        lane=decision.lane,
        attempts=decision.attempts,
        holds=decision.holds,
        input_tokens_max=decision.input_tokens_max,
        output_tokens_max=decision.output_tokens_max,
        residency=decision.residency,
        principal=request.principal,
        operation=request.operation,
        dialect=request.dialect,
        choices=request.choices,
        requested_model=request.model,
    )


def held_to_messages(held: Iterable[Held], limits: dict[str, Limit]) -> list[router_pb2.Hold]:
    """Writes holds with the units of their limits. A limit that is no longer known has no unit and is never charged."""
    return [
        router_pb2.Hold(
            limit=one.limit,
            unit=limits[one.limit].unit if one.limit in limits else ledger_pb2.LIMIT_UNIT_UNSPECIFIED,
            window_start=timestamp(one.window_start_ms),
            allowance=one.share,
            amount=one.amount,
        )
        for one in held
    ]


def refusal_to_message(refused: Refused) -> router_pb2.Refusal:
    """Writes a refusal with the statuses of its reason."""
    message = router_pb2.Refusal(
        reason=refused.reason.name,
        http_status=refused.reason.statuses.http,
        grpc_status=refused.reason.statuses.grpc,
        message=refused.message,
        rule=refused.rule,
    )
    if refused.retry_after_s is not None:
        message.retry_after.CopyFrom(duration_pb2.Duration(seconds=round(refused.retry_after_s)))
    for need in refused.needs:
        if need.amount > need.headroom:
            message.limit, message.limit_left = need.limit, need.headroom
            break
    return message


def chip_to_message(chip: Chip) -> common_pb2.Chip:
    """Writes a chip."""
    return common_pb2.Chip(
        chip_class=chip.chip_class,
        vendor=chip.vendor,
        model=chip.model,
        memory_bytes=chip.memory_bytes,
        count=chip.count,
    )


def chip_from_message(message: common_pb2.Chip) -> Chip:
    """Reads a chip."""
    return Chip(message.chip_class, message.vendor, message.model, message.memory_bytes, max(1, message.count))


def timestamp(unix_ms: int) -> timestamp_pb2.Timestamp:
    """Unix milliseconds as a message."""
    message = timestamp_pb2.Timestamp()
    message.FromMilliseconds(unix_ms)
    return message


def _attempt(replica: Replica, lane: common_pb2.Lane.ValueType) -> router_pb2.Attempt:
    return router_pb2.Attempt(
        replica=replica.id,
        address=replica.address if lane == common_pb2.LANE_DIRECT else replica.node_address,
        price=replica.price.to_message() if replica.price else None,
        served_model=replica.served_model,
        place=replica.place.label if replica.place else "",
        deployment=replica.deployment,
    )


def _candidate(verdict: Verdict) -> router_pb2.Candidate:
    replica = verdict.replica
    return router_pb2.Candidate(
        replica=replica.id,
        deployment=replica.deployment,
        node=replica.node,
        place=replica.place.label if replica.place else "",
        chip=chip_to_message(replica.chip),
        dropped_by=verdict.dropped_by,
        reason=verdict.reason,
        score=verdict.score,
        scores=[
            router_pb2.Score(scorer=scorer, value=value) for scorer, value in zip(SCORERS, verdict.scores, strict=False)
        ],
        hold_nanousd=verdict.bounds.cost_nanousd,
        lane=verdict.lane,
        price=replica.price.to_message() if replica.price else None,
    )
