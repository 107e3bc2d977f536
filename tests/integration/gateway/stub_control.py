"""Control as the gateway sees it: takes in access logs, and answers the admin API."""

from datetime import UTC, datetime
from typing import Any, Self

import grpc
import grpc.aio

from enginehouse.services.gateway import Address
from enginehouse.v1 import admin_pb2, ledger_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class StubControl:
    """The server. It keeps every start's lines, and insists on their order."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {}
        self.gaps: list[tuple[str, datetime]] = []
        self.complete_until: dict[str, datetime] = {}
        self.tokens: list[str] = []
        self.batch_lines: list[int] = []
        self.batch_bytes: list[int] = []
        self.fails_after_taking_in = 0
        """How many of the next shipments are taken in and then answered with an error."""
        self.refused: set[str] = set()
        """Starts whose shipments are refused for good."""
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def address(self) -> Address:
        """Where it listens, or last listened."""
        return Address("127.0.0.1", self._port)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listens, on the same port as before if it did before."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self._ledger(), self._admin()))
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        await self._server.start()

    async def stop(self) -> None:
        """Gone, with what it has taken in kept."""
        if self._server is not None:
            await self._server.stop(grace=None)
        self._server = None

    def _ledger(self) -> grpc.GenericRpcHandler:
        handler = grpc.unary_unary_rpc_method_handler(
            self._ship_access_log,
            ledger_pb2.ShipAccessLogRequest.FromString,
            ledger_pb2.ShipAccessLogResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("enginehouse.v1.LedgerService", {"ShipAccessLog": handler})

    def _admin(self) -> grpc.GenericRpcHandler:
        handler = grpc.unary_unary_rpc_method_handler(
            self._list_tenants,
            admin_pb2.ListTenantsRequest.FromString,
            admin_pb2.ListTenantsResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("enginehouse.v1.AdminService", {"ListTenants": handler})

    async def _ship_access_log(
        self, request: ledger_pb2.ShipAccessLogRequest, context: Context
    ) -> ledger_pb2.ShipAccessLogResponse:
        if request.envoy in self.refused:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "refused for good")
        self.batch_lines.append(len(request.lines))
        self.batch_bytes.append(request.ByteSize())
        known = self.lines.setdefault(request.envoy, [])
        if request.first_line <= len(known):
            known.extend(request.lines[len(known) - request.first_line :])
        if request.HasField("complete_until"):
            until = request.complete_until.ToDatetime(UTC)
            if request.gap:
                self.gaps.append((request.envoy, until))
            else:
                self.complete_until[request.envoy] = until
        if request.lines and self.fails_after_taking_in:
            self.fails_after_taking_in -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return ledger_pb2.ShipAccessLogResponse(next_line=len(known))

    async def _list_tenants(
        self, request: admin_pb2.ListTenantsRequest, context: Context
    ) -> admin_pb2.ListTenantsResponse:
        metadata = dict(context.invocation_metadata() or ())
        self.tokens.append(str(metadata.get("authorization", "")))
        return admin_pb2.ListTenantsResponse(tenants=[admin_pb2.Tenant(name="organizations/o/tenants/t")])
