"""`enginehouse explain`: the decision that a request would get, and why."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

from enginehouse.adapters.hints import hints_from_member
from enginehouse.cli.money import usd
from enginehouse.cli.options import STATE_DEFAULT, StateOption
from enginehouse.cli.running import RunningMesh, find_mesh, plain_errors
from enginehouse.cli.table import answer_console
from enginehouse.contract import RequestError
from enginehouse.services.server import channel
from enginehouse.v1 import common_pb2, router_pb2, router_pb2_grpc


def explain(
    model: Annotated[str, typer.Argument(help="As a client would write it.")],
    state: StateOption = None,
    tenant: Annotated[str, typer.Option(help="Whose request it would be.")] = "anywhere",
    prompt_bytes: Annotated[int, typer.Option(min=0, help="UTF-8 bytes of the prompt's text.")] = 100,
    max_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    residency: Annotated[list[str] | None, typer.Option(help="A jurisdiction; may be given again.")] = None,
    chip: Annotated[str | None, typer.Option()] = None,
    quality: Annotated[str | None, typer.Option()] = None,
    max_price: Annotated[str | None, typer.Option(help="USD for the whole request.")] = None,
    dialect: Annotated[str, typer.Option(help="openai, anthropic or grpc.")] = "openai",
    as_json: Annotated[bool, typer.Option("--json", help="The decision as JSON.")] = False,
) -> None:
    """Ask the router what it would decide for a chat, and print every candidate with what dropped it."""
    given = {"residency": residency, "chip": chip, "quality": quality, "max_price": max_price}
    request = router_pb2.RoutingRequest(
        request_id=f"explain-{uuid.uuid4()}",
        operation=common_pb2.OPERATION_CHAT,
        dialect=_dialect(dialect),
        model=model,
        prompt_text_bytes=prompt_bytes,
        message_count=1,
        output_tokens_max=max_tokens,
        hints=hints_from_member({name: value for name, value in given.items() if value}),
        principal=router_pb2.Principal(organization="default", tenant=tenant, project="default", key="explain"),
    )
    decision = asyncio.run(ask(find_mesh(Path(state or STATE_DEFAULT)), request))
    if as_json:
        print(json.dumps(json_format.MessageToDict(decision, preserving_proto_field_name=True), indent=2))
    else:
        show(decision, answer_console())


def _dialect(name: str) -> common_pb2.Dialect.ValueType:
    known = {value.removeprefix("DIALECT_").lower(): number for value, number in common_pb2.Dialect.items() if number}
    if name not in known:
        raise RequestError(f"there is no dialect {name!r}; there are {', '.join(sorted(known))}")
    return known[name]


async def ask(mesh: RunningMesh, request: router_pb2.RoutingRequest) -> router_pb2.Decision:
    """The decision of the mesh's first router."""
    async with channel(mesh.router) as connection:
        with plain_errors():
            answer = await router_pb2_grpc.RouterServiceStub(connection).Explain(
                router_pb2.ExplainRequest(request=request)
            )
    return answer.decision


def show(decision: router_pb2.Decision, console: Console) -> None:
    """Prints a decision: a line about the outcome, and a row for each candidate."""
    if decision.HasField("refusal"):
        console.print(f"refused: {decision.refusal.reason} ({decision.refusal.http_status})", style="bold red")
        console.print(decision.refusal.message, markup=False)
    else:
        lane = common_pb2.Lane.Name(decision.lane).removeprefix("LANE_").lower()
        order = ", then ".join(attempt.replica for attempt in decision.attempts)
        console.print(f"goes to {order} in the {lane} lane", style="bold green")
        for hold in decision.holds:
            console.print(f"holds {_amount(hold)} of limit {hold.limit}")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("replica", "place", "chip", "USD/M in/out", "hold USD", "score"):
        table.add_column(heading, no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for candidate in decision.candidates:
        table.add_row(*_row(candidate))
    console.print(table)


def _row(candidate: router_pb2.Candidate) -> tuple[str, ...]:
    price = candidate.price
    if candidate.dropped_by:
        score, verdict = "", f"{candidate.dropped_by}: {candidate.reason}"
    else:
        score = f"{candidate.score:.3f}"
        verdict = "kept: " + ", ".join(f"{one.scorer} {one.value:.2f}" for one in candidate.scores if one.value)
    return (
        candidate.replica,
        candidate.place or "nowhere",
        common_pb2.ChipClass.Name(candidate.chip.chip_class).removeprefix("CHIP_CLASS_").lower(),
        f"{usd(price.input_nanousd_per_million_tokens)}/{usd(price.output_nanousd_per_million_tokens)}"
        + (f" +{usd(price.request_nanousd)}/request" if price.request_nanousd else ""),
        usd(candidate.hold_nanousd),
        score,
        verdict,
    )


def _amount(hold: router_pb2.Hold) -> str:
    from enginehouse.v1 import ledger_pb2

    if hold.unit == ledger_pb2.LIMIT_UNIT_USD:
        return f"{usd(hold.amount)} USD"
    return f"{hold.amount} {ledger_pb2.LimitUnit.Name(hold.unit).removeprefix('LIMIT_UNIT_').lower().replace('_', ' ')}"
