"""What every stop of the tour needs: the mesh, clients, tenants of its own, and a way to tell."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import grpc
import openai
from google.protobuf import duration_pb2
from nats.aio.msg import Msg
from rich.console import Console

from enginehouse.cli.running import RunningMesh
from enginehouse.cli.watch import MeshWatcher
from enginehouse.contract import DependencyError
from enginehouse.services.bus import SUBJECTS, Bus
from enginehouse.services.server import channel
from enginehouse.v1 import admin_pb2, admin_pb2_grpc, ledger_pb2

ORGANIZATION = "organizations/default"
MODEL, EMBEDDER, ECHO = "smollm2", "e5", "echo"
_KEY_S = 3600


@dataclass(slots=True)
class Tour:
    """One tour.

    Attributes:
        mark: makes the names of this tour's resources its own.
        keys: secrets by tenant id.
        happened: every event since the tour began.
    """

    mesh: RunningMesh
    console: Console
    admin: "admin_pb2_grpc.AdminServiceAsyncStub"
    watcher: MeshWatcher
    mark: str
    keys: dict[str, str] = field(default_factory=dict)
    happened: list[Msg] = field(default_factory=list)

    def heading(self, number: int, title: str) -> None:
        """Begins a stop."""
        self.console.print()
        self.console.rule(f"[bold]{number}. {title}", align="left")

    def tell(self, text: str) -> None:
        """A sentence of the guide."""
        self.console.print(text, style="dim", markup=False)

    def say(self, text: str, style: str = "") -> None:
        """What the mesh did."""
        self.console.print(text, style=style, markup=False)

    def client(self, tenant: str) -> openai.AsyncOpenAI:
        """The official OpenAI SDK with a key of that tenant, without its own retries."""
        return openai.AsyncOpenAI(
            base_url=f"http://{self.mesh.door}/v1", api_key=self.keys[tenant], max_retries=0, timeout=60
        )

    def tenant_id(self, name: str) -> str:
        """The id of one of the tour's tenants."""
        return f"tour-{name}-{self.mark}"

    async def make_tenant(self, name: str, policy: admin_pb2.Policy) -> None:
        """Makes a tenant and a key for it."""
        await self.admin.CreateTenant(
            admin_pb2.CreateTenantRequest(
                parent=ORGANIZATION, tenant_id=self.tenant_id(name), tenant=admin_pb2.Tenant(policy=policy)
            )
        )
        answer = await self.admin.CreateKey(
            admin_pb2.CreateKeyRequest(
                parent=f"{ORGANIZATION}/tenants/{self.tenant_id(name)}/projects/tour",
                key_id="tour",
                role=admin_pb2.KEY_ROLE_CALLER,
                ttl=duration_pb2.Duration(seconds=_KEY_S),
            )
        )
        self.keys[name] = answer.secret

    async def make_budget(self, tenant: str, cap_nanousd: int) -> str:
        """Gives a tenant a budget without a window; returns its resource name."""
        limit = await self.admin.CreateLimit(
            admin_pb2.CreateLimitRequest(
                limit_id=self.tenant_id(tenant),
                limit=admin_pb2.Limit(
                    scope=f"{ORGANIZATION}/tenants/{self.tenant_id(tenant)}",
                    unit=ledger_pb2.LIMIT_UNIT_USD,
                    window=ledger_pb2.LIMIT_WINDOW_NONE,
                    cap=cap_nanousd,
                ),
            )
        )
        return limit.name

    async def until_known(self, tenant: str, deadline_s: float = 10) -> None:
        """Waits until the routers know the tenant's key."""
        async with asyncio.timeout(deadline_s):
            while True:
                try:
                    await self.client(tenant).models.list()
                except openai.AuthenticationError:
                    await asyncio.sleep(0.02)
                else:
                    return


def message_of(error: openai.APIStatusError) -> str:
    """The message that the mesh wrote into an error."""
    return str(error.body.get("message", error.message)) if isinstance(error.body, dict) else error.message


@asynccontextmanager
async def open_tour(mesh: RunningMesh, console: Console) -> AsyncIterator[Tour]:
    """Connects to the mesh, and takes away in the end what the tour has made."""
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(channel(mesh.operator))
        watcher = MeshWatcher(mesh)
        await watcher.start()
        stack.push_async_callback(watcher.stop)
        bus = Bus(mesh.nats_url, "tour")
        await bus.start()
        stack.push_async_callback(bus.stop)
        await bus.connected()
        tour = Tour(mesh, console, admin_pb2_grpc.AdminServiceStub(connection), watcher, secrets.token_hex(2))

        async def note(message: Msg) -> None:
            tour.happened.append(message)

        await bus.client.subscribe(SUBJECTS, cb=note)
        stack.push_async_callback(_clean_up, tour)
        _must_have_models(mesh)
        await _until_complete(watcher)
        yield tour


async def _until_complete(watcher: MeshWatcher) -> None:
    try:
        async with asyncio.timeout(120):
            await watcher.complete.wait()
    except TimeoutError:
        ready, expected = watcher.picture.replicas_ready, watcher.picture.replicas_expected
        raise DependencyError(f"only {ready} of {expected} replicas became ready; see the nodes' logs") from None


def _must_have_models(mesh: RunningMesh) -> None:
    declared = {one.public_model for one in mesh.settings.deployments}
    missing = sorted({MODEL, EMBEDDER, ECHO} - declared)
    if missing:
        raise DependencyError(f"the tour needs the deployments of the default settings; missing: {', '.join(missing)}")


async def _clean_up(tour: Tour) -> None:
    for name in tour.keys:
        try:
            await tour.admin.DeleteLimit(admin_pb2.DeleteLimitRequest(name=f"limits/{tour.tenant_id(name)}"))
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
        request = admin_pb2.DeleteTenantRequest(name=f"{ORGANIZATION}/tenants/{tour.tenant_id(name)}")
        await tour.admin.DeleteTenant(request)
