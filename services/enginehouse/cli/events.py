"""`enginehouse events`: what happens in the mesh, as it happens."""

import asyncio
import json
from collections.abc import Callable
from typing import Annotated

import typer
from nats.aio.msg import Msg
from rich.console import Console

from enginehouse.cli.options import STATE_DEFAULT, StateOption
from enginehouse.cli.running import RunningMesh, find_mesh
from enginehouse.services.bus import SUBJECTS, Bus

Write = Callable[[Msg], None]
app = typer.Typer(help="Lifecycle and decision events.", no_args_is_help=True)
_DETAILS = (
    "reason",
    "model",
    "replica",
    "lane",
    "refusal",
    "charged_nanousd",
    "outcome",
    "threshold_percent",
    "revision",
    "problems",
)
_JsonOption = Annotated[bool, typer.Option("--json", help="A JSON object a line, with the CloudEvents headers.")]


@app.command("tail")
def tail(
    state: StateOption = None,
    subject: Annotated[str, typer.Option(help="NATS subject, with wildcards.")] = SUBJECTS,
    as_json: _JsonOption = False,
) -> None:
    """Print events until Ctrl-C."""
    write = _write_json if as_json else _write_line
    try:
        asyncio.run(_tail(find_mesh(state or STATE_DEFAULT), subject, write))
    except KeyboardInterrupt:
        return


async def _tail(mesh: RunningMesh, subject: str, write: Write) -> None:
    bus = Bus(mesh.nats_url, "events tail")
    await bus.start()
    await bus.connected()
    messages = await bus.client.subscribe(subject)
    Console(stderr=True, highlight=False).print(f"listening on {subject}; Ctrl-C ends", style="dim")
    async for message in messages.messages:
        write(message)


def describe(message: Msg) -> str:
    """One event on one line: when, where, what, about whom, and the details that matter."""
    headers, data = message.headers or {}, json.loads(message.data)
    kind = headers.get("ce-type", "").removeprefix("enginehouse.").removesuffix(".v1")
    details = " ".join(f"{name}={_short(data[name])}" for name in _DETAILS if data.get(name))
    time, place = headers.get("ce-time", "")[11:23], message.subject.split(".")[1]
    return f"{time} {place:8} {kind:20} {headers.get('ce-subject', '')} {details}"


def _write_line(message: Msg) -> None:
    Console(highlight=False, soft_wrap=True).print(describe(message), markup=False)


def _write_json(message: Msg) -> None:
    event = {"subject": message.subject, "headers": message.headers, "data": json.loads(message.data)}
    print(json.dumps(event), flush=True)


def _short(value: object) -> str:
    if isinstance(value, list):
        return f"{value[0]!r}" + (f" and {len(value) - 1} more" if len(value) > 1 else "")
    return str(value.get("reason", "yes")) if isinstance(value, dict) else str(value)
