"""The status screen of `enginehouse up`."""

from collections.abc import Iterable

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from enginehouse.cli.admin import limit_row
from enginehouse.cli.money import usd
from enginehouse.cli.watch import DECISIONS_KEPT, MeshPicture
from enginehouse.services.local import Member, MemberState, describe_exit
from enginehouse.v1 import common_pb2, node_pb2, router_pb2

_GOOD, _BUSY, _BAD = "green", "yellow", "red"
_MEMBER_STYLES = {MemberState.READY: _GOOD, MemberState.STOPPED: _BAD, MemberState.RESTARTING: _BAD}
_REPLICA_STYLES = {node_pb2.REPLICA_STATE_READY: _GOOD, node_pb2.REPLICA_STATE_FAILED: _BAD}


def screen(members: Iterable[Member], picture: MeshPicture) -> Group:
    """Everything, top to bottom: processes, replicas, limits, the last decisions."""
    return Group(
        Panel(_processes(members), title="processes", title_align="left"),
        Panel(_replicas(picture), title="replicas", title_align="left"),
        Panel(_limits(picture), title="limits", title_align="left"),
        Panel(_decisions(picture), title="last decisions", title_align="left"),
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True)
    for heading in headings:
        table.add_column(heading, no_wrap=True, overflow="ellipsis", header_style="dim")
    return table


def _processes(members: Iterable[Member]) -> Table:
    table = _table("process", "state", "pid", "restarts", "last end")
    for member in members:
        table.add_row(
            member.spec.name,
            Text(member.state.value, style=_MEMBER_STYLES.get(member.state, _BUSY)),
            str(member.pid or ""),
            str(member.restarts or ""),
            describe_exit(member.last_exit) if member.last_exit is not None else "",
        )
    return table


def _replicas(picture: MeshPicture) -> Table:
    table = _table("replica", "state", "place", "chip", "running", "waiting", "price in/out (USD/M)", "why")
    for _, registration in sorted(picture.registrations.items()):
        for replica in registration.replicas:
            table.add_row(
                replica.id,
                Text(_state(replica), style=_REPLICA_STYLES.get(replica.state, _BUSY)),
                registration.place or "nowhere",
                common_pb2.ChipClass.Name(registration.chip.chip_class).removeprefix("CHIP_CLASS_").lower(),
                str(replica.load.running_requests),
                str(replica.load.waiting_requests),
                _price(picture, replica, registration.node),
                replica.reason,
            )
    return table


def _limits(picture: MeshPicture) -> Table:
    table = _table("limit", "scope", "window", "unit", "cap", "spent", "held by routers")
    for limit in picture.limits:
        table.add_row(*limit_row(limit))
    return table


def _decisions(picture: MeshPicture) -> Table:
    table = _table("time", "tenant", "model", "lane", "outcome")
    for decision in list(picture.decisions)[:DECISIONS_KEPT]:
        table.add_row(
            decision.decided_at.ToDatetime().strftime("%H:%M:%S"),
            decision.request.principal.tenant,
            decision.request.model,
            common_pb2.Lane.Name(decision.lane).removeprefix("LANE_").lower() if decision.lane else "",
            _outcome(decision),
        )
    return table


def _outcome(decision: router_pb2.Decision) -> Text:
    if decision.HasField("refusal"):
        return Text(f"{decision.refusal.http_status} {decision.refusal.reason}", style=_BAD)
    return Text(decision.attempts[0].replica, style=_GOOD)


def _state(replica: node_pb2.Replica) -> str:
    return node_pb2.ReplicaState.Name(replica.state).removeprefix("REPLICA_STATE_").lower()


def _price(picture: MeshPicture, replica: node_pb2.Replica, node: str) -> str:
    for deployment in picture.deployments:
        for placement in deployment.placements:
            if deployment.name == f"deployments/{replica.deployment}" and placement.node == node:
                price = placement.price
                tokens = f"{usd(price.input_nanousd_per_million_tokens)}/{usd(price.output_nanousd_per_million_tokens)}"
                return tokens + (f" +{usd(price.request_nanousd)}/request" if price.request_nanousd else "")
    return ""
