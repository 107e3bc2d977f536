"""Decisions that are made again: what is kept of one, and the same function on what was kept."""

from enginehouse.router.decide import decide
from enginehouse.router.decision import Decision
from enginehouse.router.moment import Moment
from enginehouse.router.record import request_from_message, request_to_message, timestamp
from enginehouse.router.replica import IDLE, Load
from enginehouse.router.request import Request
from enginehouse.router.view import View
from enginehouse.v1 import records_pb2

UNKNOWN_HEADROOM = 2**62
"""What stands for the headroom of a limit that nobody asked at the time: it refuses nothing."""


def make_record(
    request: Request,
    view: View,
    moment: Moment,
    decision: Decision,
    *,
    decision_id: str,
    router: str,
    decided_at_ms: int,
) -> records_pb2.DecisionRecord:
    """What one decision was made of, and what it was. To be made before anything is held for it."""
    limits = {
        limit.id
        for deployment in view.models.get(request.model, ())
        for limit in view.limits_over(request.principal, deployment)
    }
    return records_pb2.DecisionRecord(
        decision_id=decision_id,
        router=router,
        decided_at=timestamp(decided_at_ms),
        request=request_to_message(request),
        fleet_version=view.fleet_version,
        policy_version=view.policy_version,
        headrooms=[records_pb2.Headroom(limit=limit, amount=moment.headroom(limit)) for limit in sorted(limits)],
        replicas=[
            message
            for replica in view.candidates(request.model)
            if (message := _moment_of(replica.id, moment)) is not None
        ],
        outcome=outcome_of(decision),
    )


def outcome_of(decision: Decision) -> records_pb2.DecisionOutcome:
    """What is compared of a decision."""
    refused = decision.refused
    return records_pb2.DecisionOutcome(
        lane=decision.lane,
        replicas=[replica.id for replica in decision.attempts],
        holds=[records_pb2.Headroom(limit=limit, amount=amount) for limit, amount in sorted(decision.holds.items())],
        input_tokens_max=decision.bounds.input_tokens,
        output_tokens_max=decision.bounds.output_tokens,
        clamped=decision.is_clamped,
        refusal=refused.reason.name if refused else "",
        rule=refused.rule if refused else "",
    )


def decide_again(record: records_pb2.DecisionRecord, view: View) -> Decision:
    """Makes a recorded decision again, on `view`, whose rules may be others than they were."""
    request = request_from_message(record.request)
    headrooms = {one.limit: one.amount for one in record.headrooms}
    moment = Moment(
        headroom=lambda limit: headrooms.get(limit, UNKNOWN_HEADROOM),
        in_flight={one.replica: one.in_flight for one in record.replicas},
        loads={one.replica: _load(one) for one in record.replicas},
        prefix_matches={one.replica: one.prefix_matches for one in record.replicas},
    )
    return decide(request, view, view.policy(request.principal, request.model), moment)


def _moment_of(replica: str, moment: Moment) -> records_pb2.ReplicaMoment | None:
    load = moment.loads.get(replica, IDLE)
    message = records_pb2.ReplicaMoment(
        in_flight=moment.in_flight.get(replica, 0),
        running_requests=load.running,
        waiting_requests=load.waiting,
        prefill_tokens_per_second=load.prefill_tokens_per_second,
        decode_tokens_per_second=load.decode_tokens_per_second,
        prefix_matches=moment.prefix_matches.get(replica, 0),
    )
    if message == records_pb2.ReplicaMoment():
        return None
    message.replica = replica
    return message


def _load(message: records_pb2.ReplicaMoment) -> Load:
    return Load(
        message.running_requests,
        message.waiting_requests,
        message.prefill_tokens_per_second,
        message.decode_tokens_per_second,
    )
