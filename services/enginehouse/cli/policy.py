"""`enginehouse policy`: the rules in force, and files of rules: checked, compared and applied."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import typer
from rich.console import Console

from enginehouse.cli.options import STATE_DEFAULT, ConfigOption, StateOption
from enginehouse.cli.running import RunningMesh, find_mesh, plain_errors
from enginehouse.contract import EnginehouseError, RequestError
from enginehouse.services.local import StateFolder
from enginehouse.services.policies import Catalog
from enginehouse.services.server import channel
from enginehouse.services.settings import (
    POLICY_SET,
    WrittenPolicies,
    catalog_of,
    find_file,
    load,
    load_policies,
    policy_text,
    residency_text,
    rule_text,
)
from enginehouse.v1 import admin_pb2, admin_pb2_grpc

app = typer.Typer(help="Policies: where data may be, on which chips, at what price.", no_args_is_help=True)
EXIT_REFUSED = 2
"""A file of rules was refused; the rules in force are as they were."""

Answer = TypeVar("Answer")
Stub: TypeAlias = "admin_pb2_grpc.AdminServiceAsyncStub"  # only the type stubs have it
FileArgument = Annotated[
    Path, typer.Argument(help="YAML with `policies` and `data_classes`: a file of its own, or the settings.")
]


@app.command("show")
def show(state: StateOption = None) -> None:
    """Print the rules in force, as a file that could be applied."""
    current = _asked(_mesh(state), _read)
    print(f"# {current.name}, revision {current.revision}, {current.etag}")
    print(policy_text(current), end="")


@app.command("check")
def check(file: FileArgument, config: ConfigOption = None, state: StateOption = None) -> None:
    """Say what is wrong with a file of rules, with the line. Changes nothing.

    While a mesh runs it checks the file too: it knows the tenants and deployments that were made since. Without one the
    settings of --config are what the rules may refer to.
    """
    if not StateFolder(state or STATE_DEFAULT).is_in_use:
        settings_file = find_file(config)
        with _refusals(None):
            load_policies(file, catalog_of(load(settings_file)))
        print(f"{file}: right, by {settings_file}; no mesh runs that could be asked")
        return
    mesh = _mesh(state)
    with _refusals(None):
        written = load_policies(file, _tree_of(mesh))
        current = _asked(mesh, _read)
        would = _located(written, lambda: _asked(mesh, lambda stub: _update(stub, written, validate_only=True)))
    _say_changes(current, would)
    print(f"{file}: right")


@app.command("apply")
def apply(file: FileArgument, state: StateOption = None) -> None:
    """Put a file of rules in force, in place of those that are. Prints what changes."""
    mesh = _mesh(state)
    with _refusals(mesh):
        written = load_policies(file, _tree_of(mesh))
    with _refusals(None):  # of what control refuses it tells everybody itself
        current = _asked(mesh, _read)
        written.message.etag = current.etag
        after = _located(written, lambda: _asked(mesh, lambda stub: _update(stub, written)))
    _say_changes(current, after)
    print(f"revision {after.revision} is in force" if after.etag != current.etag else "nothing changes")
    if mesh.settings.policies or mesh.settings.data_classes:
        print("note: the mesh's own settings file declares rules; they are back when it is started again")


@dataclass(frozen=True, slots=True)
class Change:
    """A part of a set that differs from the same part of another set.

    Attributes:
        sign: "+" added, "~" changed, "-" removed.
        what: "rule" or "data class".
        name: its name.
        before: as YAML; empty when it was added.
        after: as YAML; empty when it was removed.
    """

    sign: str
    what: str
    name: str
    before: str = ""
    after: str = ""


def changes(before: admin_pb2.PolicySet, after: admin_pb2.PolicySet) -> list[Change]:
    """What becomes of the rules and classes of data when `after` takes the place of `before`."""
    found = [
        *_differences("rule", _rules(before), _rules(after)),
        *_differences("data class", _classes(before), _classes(after)),
    ]
    kept_before = [rule.name for rule in before.rules if rule.name in _rules(after)]
    kept_after = [rule.name for rule in after.rules if rule.name in _rules(before)]
    if kept_before != kept_after:
        found.append(Change("~", "order of rules", "", "\n".join(kept_before), "\n".join(kept_after)))
    return found


def _differences(what: str, before: dict[str, str], after: dict[str, str]) -> Iterator[Change]:
    for name, text in after.items():
        if name not in before:
            yield Change("+", what, name, after=text)
        elif before[name] != text:
            yield Change("~", what, name, before[name], text)
    for name, text in before.items():
        if name not in after:
            yield Change("-", what, name, before=text)


def _rules(policy_set: admin_pb2.PolicySet) -> dict[str, str]:
    return {rule.name: rule_text(rule) for rule in policy_set.rules}


def _classes(policy_set: admin_pb2.PolicySet) -> dict[str, str]:
    return {name: residency_text(rule) for name, rule in sorted(policy_set.data_classes.items())}


def _say_changes(before: admin_pb2.PolicySet, after: admin_pb2.PolicySet) -> None:
    console = Console(highlight=False, soft_wrap=True)
    styles = {"+": "green", "-": "red", "~": "yellow"}
    for change in changes(before, after):
        console.print(f"{change.sign} {change.what} {change.name}".rstrip(), style=styles[change.sign], markup=False)
        old, new = change.before.splitlines(), change.after.splitlines()
        lines = [f"    - {line}" for line in old if line not in new] + [
            f"    + {line}" for line in new if line not in old
        ]
        if change.sign == "~":
            console.print("\n".join(lines or [f"    + {line}" for line in new]), markup=False)


@contextmanager
def _refusals(mesh: RunningMesh | None) -> Iterator[None]:
    """Ends the command when a file is refused. A mesh that is given has everybody hear of it."""
    try:
        yield
    except RequestError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if mesh is not None:
            _report(mesh, error.message.split("\n"))
        print("refused; the rules in force are as they were", file=sys.stderr)
        raise typer.Exit(EXIT_REFUSED) from error


def _report(mesh: RunningMesh, problems: list[str]) -> None:
    report = admin_pb2.ReportRefusedPolicySetRequest(name=POLICY_SET, problems=problems)
    try:
        _asked(mesh, lambda stub: stub.ReportRefusedPolicySet(report))
    except EnginehouseError as error:
        print(f"nobody else was told: {error.message}", file=sys.stderr)


def _located(written: WrittenPolicies, ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except RequestError as error:
        raise RequestError("\n".join(written.located(error.message)), error.reason) from error


def _mesh(state: Path | None) -> RunningMesh:
    return find_mesh(state or STATE_DEFAULT)


def _tree_of(mesh: RunningMesh) -> Catalog:
    """What is known of a running mesh without asking it: its groups. Its tenants and deployments it knows itself."""
    return Catalog(mesh.settings.jurisdiction_tree)


def _read(stub: Stub) -> Awaitable[admin_pb2.PolicySet]:
    return stub.GetPolicySet(admin_pb2.GetPolicySetRequest(name=POLICY_SET))


def _update(stub: Stub, written: WrittenPolicies, *, validate_only: bool = False) -> Awaitable[admin_pb2.PolicySet]:
    request = admin_pb2.UpdatePolicySetRequest(policy_set=written.message, validate_only=validate_only)
    return stub.UpdatePolicySet(request)


def _asked(mesh: RunningMesh, ask: Callable[[Stub], Awaitable[Answer]]) -> Answer:
    async def call() -> Answer:
        async with channel(mesh.operator) as connection:
            with plain_errors():
                return await ask(admin_pb2_grpc.AdminServiceStub(connection))

    return asyncio.run(call())
