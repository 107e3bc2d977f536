"""A fleet as a message, and a message as a fleet: what a decision is made again on."""

from collections.abc import Iterable

from enginehouse.router.jurisdiction import Jurisdictions
from enginehouse.router.price import Price
from enginehouse.router.record import chip_from_message, chip_to_message
from enginehouse.router.replica import Capabilities, Replica
from enginehouse.router.view import View
from enginehouse.v1 import node_pb2, records_pb2


def fleet_to_message(view: View) -> records_pb2.FleetSnapshot:
    """The view's fleet, without the addresses, which say nothing about a decision."""
    every = (replica for group in view.replicas.values() for replica in group)
    return records_pb2.FleetSnapshot(
        version=view.fleet_version,
        replicas=[_replica_to_message(replica) for replica in every],
        here=[place.label if place else "" for place in view.here],
    )


def replicas_from_message(
    messages: Iterable[records_pb2.SnapshotReplica], jurisdictions: Jurisdictions
) -> tuple[Replica, ...]:
    """The replicas of a snapshot, without addresses. A label that is no place any more is nowhere."""
    return tuple(_replica_from_message(message, jurisdictions) for message in messages)


def _replica_to_message(replica: Replica) -> records_pb2.SnapshotReplica:
    can = replica.capabilities
    return records_pb2.SnapshotReplica(
        id=replica.id,
        deployment=replica.deployment,
        model=replica.model,
        node=replica.node,
        served_model=replica.served_model,
        place=replica.place.label if replica.place else "",
        chip=chip_to_message(replica.chip),
        capabilities=node_pb2.Capabilities(
            operations=sorted(can.operations),
            features=sorted(can.features),
            direct_dialects=sorted(can.direct_dialects),
            context_tokens_max=can.context_tokens_max,
            output_tokens_max=can.output_tokens_max,
            template_tokens=can.template_tokens,
            message_tokens=can.message_tokens,
            image_tokens_max=can.image_tokens_max,
            stream_usage_members=can.stream_usage_members,
        ),
        price=replica.price.to_message() if replica.price else None,
        quality=replica.quality,
        quality_scores=dict(replica.quality_scores),
        tenants=sorted(replica.tenants),
        forced_lane=replica.forced_lane,
        in_flight_max=replica.in_flight_max,
        parallel=replica.parallel,
        unavailable=replica.unavailable,
    )


def _replica_from_message(message: records_pb2.SnapshotReplica, jurisdictions: Jurisdictions) -> Replica:
    return Replica(
        id=message.id,
        deployment=message.deployment,
        model=message.model,
        node=message.node,
        address="",
        node_address="",
        served_model=message.served_model,
        place=jurisdictions.place_or_nowhere(message.place),
        chip=chip_from_message(message.chip),
        capabilities=capabilities_from_message(message.capabilities),
        price=Price.from_message(message.price) if message.HasField("price") else None,
        quality=message.quality,
        quality_scores=tuple(sorted(message.quality_scores.items())),
        tenants=frozenset(message.tenants),
        forced_lane=message.forced_lane,
        in_flight_max=message.in_flight_max,
        parallel=message.parallel,
        unavailable=message.unavailable,
    )


def capabilities_from_message(message: node_pb2.Capabilities) -> Capabilities:
    """What an engine can do."""
    return Capabilities(
        operations=frozenset(message.operations),
        features=frozenset(message.features),
        direct_dialects=frozenset(message.direct_dialects),
        context_tokens_max=message.context_tokens_max,
        output_tokens_max=message.output_tokens_max,
        template_tokens=message.template_tokens,
        message_tokens=message.message_tokens,
        image_tokens_max=message.image_tokens_max,
        stream_usage_members=message.stream_usage_members,
    )
