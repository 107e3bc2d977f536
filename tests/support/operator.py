"""A mesh's operator: makes tenants, keys and limits over the Unix socket, and looks at everything."""

import itertools
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import grpc.aio

from enginehouse.services.server import channel
from enginehouse.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    ledger_pb2,
    node_pb2,
    node_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
)
from tests.support.caller import KEY, PROJECT, Caller, chat_body, open_caller
from tests.support.echo import EchoControls
from tests.support.happenings import Decisions, Events, following, subscribed
from tests.support.mesh import UserMesh
from tests.support.waiting import DEADLINE_S, until_async

ORGANIZATION = "organizations/default"
_OK = 200


class Operator:
    """Everything that the mesh's user may do and see on the mesh's own machine.

    Args:
        mesh: it runs.
        stack: closes what was opened.
    """

    def __init__(self, mesh: UserMesh, stack: AsyncExitStack, http: aiohttp.ClientSession) -> None:
        self.mesh = mesh
        self._stack = stack
        self._http = http
        self._mark = secrets.token_hex(3)
        self._numbers = itertools.count()

    async def connect(self) -> None:
        """Opens the connections."""
        running, enter = self.mesh.running, self._stack.enter_async_context
        self.admin = admin_pb2_grpc.AdminServiceStub(await enter(channel(running.operator)))
        self.router = router_pb2_grpc.RouterServiceStub(await enter(channel(running.router)))
        self.nodes = {
            node.name: node_pb2_grpc.NodeServiceStub(await enter(channel(f"{running.settings.host}:{node.port}")))
            for node in running.settings.nodes
        }

    async def events(self) -> Events:
        """Events from now on."""
        return await self._stack.enter_async_context(subscribed(self.mesh.running.nats_url))

    async def decisions(self, caller: Caller, model: str) -> Decisions:
        """Decisions from now on. `caller` asks for `model` until the stream is seen to stand."""
        decisions = await self._stack.enter_async_context(following(self.mesh.running.router))

        async def stands() -> bool:
            await caller.chat(model)
            return bool(decisions.by_id)

        await until_async(stands, "the stream of decisions")
        return decisions

    async def caller(self, tenant: str = "", policy: admin_pb2.Policy | None = None) -> Caller:
        """A caller with a key of its own, which the mesh knows already.

        Args:
            tenant: one that is declared. Empty: a new one, with `policy`.
        """
        tenant_id = tenant or f"t{next(self._numbers)}-{self._mark}"
        if not tenant:
            await self.admin.CreateTenant(
                admin_pb2.CreateTenantRequest(
                    parent=ORGANIZATION, tenant_id=tenant_id, tenant=admin_pb2.Tenant(policy=policy)
                )
            )
        answer = await self.admin.CreateKey(
            admin_pb2.CreateKeyRequest(
                parent=f"{ORGANIZATION}/tenants/{tenant_id}/projects/{PROJECT}",
                key_id=KEY if not tenant else f"k{next(self._numbers)}-{self._mark}",
                role=admin_pb2.KEY_ROLE_CALLER,
            )
        )
        caller = await self._stack.enter_async_context(open_caller(self.mesh.door, tenant_id, answer.secret))
        await until_async(lambda: self._is_known(caller), "the routers know the key")
        return caller

    async def limit(
        self,
        caller: Caller,
        unit: ledger_pb2.LimitUnit.ValueType,
        cap: int,
        *,
        model: str,
        window: ledger_pb2.LimitWindow.ValueType = ledger_pb2.LIMIT_WINDOW_NONE,
    ) -> str:
        """A limit on the caller's tenant, once requests for `model` hold in it. Returns its resource name."""
        limit = admin_pb2.Limit(scope=caller.tenant_name, unit=unit, window=window, cap=cap)
        limit_id = f"l{next(self._numbers)}-{self._mark}"
        made = await self.admin.CreateLimit(admin_pb2.CreateLimitRequest(limit_id=limit_id, limit=limit))

        async def holds() -> bool:
            decision = await self.explain(self.routing_request(caller, model))
            return limit_id in {hold.limit for hold in decision.holds} or decision.refusal.limit == limit_id

        await until_async(holds, f"requests hold in {limit_id}")
        return made.name

    async def status(self, limit: str) -> admin_pb2.LimitStatus:
        """A limit's spending now."""
        return (await self.admin.GetLimit(admin_pb2.GetLimitRequest(name=limit))).status

    async def until_control_answers(self) -> None:
        """Waits until control does, after it was killed."""

        async def answers() -> bool:
            try:
                await self.admin.ListTenants(admin_pb2.ListTenantsRequest(parent=ORGANIZATION))
            except grpc.aio.AioRpcError:
                return False
            return True

        await until_async(answers, "control answers")

    async def until_spent(self, limit: str, amount: int, deadline_s: float = DEADLINE_S) -> None:
        """Waits until exactly `amount` is spent of a limit."""

        async def is_spent() -> bool:
            return (await self.status(limit)).spent == amount

        try:
            await until_async(is_spent, f"{amount} spent of {limit}", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is now: {await self.status(limit)}") from None

    async def replicas(self) -> dict[str, node_pb2.Replica]:
        """Every replica by id, as its node sees it."""
        answers = [await node.ListReplicas(node_pb2.ListReplicasRequest()) for node in self.nodes.values()]
        return {replica.id: replica for answer in answers for replica in answer.replicas}

    async def engine(self, replica: str) -> EchoControls:
        """The controls of a replica's echo engine."""
        return EchoControls((await self.replicas())[replica].address, self._http)

    async def explain(self, request: router_pb2.RoutingRequest) -> router_pb2.Decision:
        """What the router would decide."""
        return (await self.router.Explain(router_pb2.ExplainRequest(request=request))).decision

    def routing_request(self, caller: Caller, model: str) -> router_pb2.RoutingRequest:
        """A chat of `caller`, as the router sees it."""
        return router_pb2.RoutingRequest(
            request_id=f"explained-{uuid.uuid4()}",
            operation=common_pb2.OPERATION_CHAT,
            dialect=common_pb2.DIALECT_OPENAI,
            model=model,
            prompt_text_bytes=4,
            message_count=1,
            principal=caller.principal,
        )

    async def _is_known(self, caller: Caller) -> bool:
        url = f"{self.mesh.url}/v1/models"
        async with caller.http.get(url, headers=caller.headers) as answer:
            return answer.status == _OK


@asynccontextmanager
async def operate(mesh: UserMesh) -> AsyncIterator[Operator]:
    """An operator of a mesh that runs."""
    async with AsyncExitStack() as stack:
        operator = Operator(mesh, stack, await stack.enter_async_context(aiohttp.ClientSession()))
        await operator.connect()
        yield operator


__all__ = ["ORGANIZATION", "Operator", "chat_body", "operate"]
