"""`enginehouse keys`, `tenants`, `limits` and `deployments`: the admin API, for whoever may read the state folder."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import typer
from google.protobuf import duration_pb2
from rich.table import Table

from enginehouse.cli.money import usd
from enginehouse.cli.options import STATE_DEFAULT, StateOption
from enginehouse.cli.running import find_mesh, plain_errors
from enginehouse.cli.table import answer_console
from enginehouse.services.server import channel
from enginehouse.v1 import admin_pb2, admin_pb2_grpc, ledger_pb2

keys = typer.Typer(help="API keys.", no_args_is_help=True)
tenants = typer.Typer(help="Tenants and their policies.", no_args_is_help=True)
limits = typer.Typer(help="Limits, budgets among them.", no_args_is_help=True)
deployments = typer.Typer(help="Deployments.", no_args_is_help=True)

Answer = TypeVar("Answer")
Stub: TypeAlias = "admin_pb2_grpc.AdminServiceAsyncStub"  # only the type stubs have it
TenantOption = Annotated[str, typer.Option("--tenant", help="The tenant's id.")]
ProjectOption = Annotated[str, typer.Option("--project", help="The project's id; made if it is not there.")]


@keys.command("create")
def create_key(
    tenant: TenantOption,
    project: ProjectOption = "default",
    key: Annotated[str, typer.Option("--key", help="The key's id; made up if it is left out.")] = "",
    days: Annotated[int, typer.Option(min=0, help="Days until it expires; 0: never.")] = 0,
    admin: Annotated[bool, typer.Option("--admin", help="May use the admin API too.")] = False,
    state: StateOption = None,
) -> None:
    """Make a key and print its secret, which is shown this once."""
    request = admin_pb2.CreateKeyRequest(
        parent=f"organizations/default/tenants/{tenant}/projects/{project}",
        key_id=key or f"key-{secrets.token_hex(4)}",
        role=admin_pb2.KEY_ROLE_ADMIN if admin else admin_pb2.KEY_ROLE_CALLER,
        ttl=duration_pb2.Duration(seconds=days * 86400) if days else None,
    )
    answer = _asked(state, lambda stub: stub.CreateKey(request))
    print(answer.secret)


@keys.command("list")
def list_keys(tenant: TenantOption, project: ProjectOption = "default", state: StateOption = None) -> None:
    """List a project's keys."""
    request = admin_pb2.ListKeysRequest(parent=f"organizations/default/tenants/{tenant}/projects/{project}")
    answer = _asked(state, lambda stub: stub.ListKeys(request))
    _table(
        ("key", "prefix", "role", "expires"),
        [
            (
                one.name.rsplit("/", 1)[1],
                one.prefix,
                admin_pb2.KeyRole.Name(one.role).removeprefix("KEY_ROLE_").lower(),
                one.expire_time.ToJsonString() if one.HasField("expire_time") else "never",
            )
            for one in answer.keys
        ],
    )


@keys.command("delete")
def delete_key(
    key: Annotated[str, typer.Argument(help="The key's id.")],
    tenant: TenantOption,
    project: ProjectOption = "default",
    state: StateOption = None,
) -> None:
    """Delete a key; it stops working everywhere at once."""
    name = f"organizations/default/tenants/{tenant}/projects/{project}/keys/{key}"
    _asked(state, lambda stub: stub.DeleteKey(admin_pb2.DeleteKeyRequest(name=name)))


@tenants.command("list")
def list_tenants(state: StateOption = None) -> None:
    """List the tenants with their residency rules."""
    request = admin_pb2.ListTenantsRequest(parent="organizations/default")
    answer = _asked(state, lambda stub: stub.ListTenants(request))
    _table(
        ("tenant", "may be in", "may not be in"),
        [
            (
                one.name.rsplit("/", 1)[1],
                ", ".join(one.policy.residency.allow) or "any labelled place",
                ", ".join(one.policy.residency.deny),
            )
            for one in answer.tenants
        ],
    )


@limits.command("list")
def list_limits(state: StateOption = None) -> None:
    """List the limits with what is spent and what is held."""
    answer = _asked(state, lambda stub: stub.ListLimits(admin_pb2.ListLimitsRequest()))
    _table(
        ("limit", "scope", "window", "unit", "cap", "spent", "allotted"),
        [limit_row(one) for one in answer.limits],
    )


@deployments.command("list")
def list_deployments(state: StateOption = None) -> None:
    """List the deployments with where they are placed."""
    answer = _asked(state, lambda stub: stub.ListDeployments(admin_pb2.ListDeploymentsRequest()))
    _table(
        ("deployment", "model", "engine", "revision", "placed on"),
        [
            (
                one.name.removeprefix("deployments/"),
                ", ".join((one.model, *one.aliases)),
                one.engine,
                str(one.revision),
                ", ".join(placement.node for placement in one.placements),
            )
            for one in answer.deployments
        ],
    )


def limit_row(limit: admin_pb2.Limit) -> tuple[str, ...]:
    """A limit as a row: id, scope, window, unit, cap, spent, allotted."""
    unit = ledger_pb2.LimitUnit.Name(limit.unit).removeprefix("LIMIT_UNIT_").lower()

    def written(amount: int) -> str:
        return usd(amount) if limit.unit == ledger_pb2.LIMIT_UNIT_USD else str(amount)

    return (
        limit.name.removeprefix("limits/"),
        limit.scope.removeprefix("organizations/"),
        ledger_pb2.LimitWindow.Name(limit.window).removeprefix("LIMIT_WINDOW_").lower(),
        unit,
        written(limit.cap),
        written(limit.status.spent),
        written(limit.status.allotted),
    )


def _asked(state: Path | None, ask: Callable[[Stub], Awaitable[Answer]]) -> Answer:
    async def call() -> Answer:
        mesh = find_mesh(state or STATE_DEFAULT)
        async with channel(mesh.operator) as connection:
            with plain_errors():
                return await ask(admin_pb2_grpc.AdminServiceStub(connection))

    return asyncio.run(call())


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    answer_console().print(table)
