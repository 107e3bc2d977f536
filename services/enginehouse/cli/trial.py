"""A key that lasts as long as `enginehouse up` runs, so that the examples it prints can be pasted."""

import secrets
from types import TracebackType

import grpc
from google.protobuf import duration_pb2

from enginehouse.cli.running import RunningMesh
from enginehouse.services.server import channel
from enginehouse.v1 import admin_pb2, admin_pb2_grpc

_DAY_S = 86400


class TrialKey:
    """Made in the first declared tenant without a residency rule (or just the first), deleted at the end.

    The block gets its secret; an empty one when no tenant is declared.
    """

    def __init__(self, mesh: RunningMesh) -> None:
        self._mesh = mesh
        self._name = ""

    async def __aenter__(self) -> str:
        tenants = self._mesh.settings.tenants
        if not tenants:
            return ""
        open_ones = [one for one in tenants if not one.residency.allow and not one.residency.deny]
        tenant = (open_ones or tenants)[0].name
        request = admin_pb2.CreateKeyRequest(
            parent=f"organizations/default/tenants/{tenant}/projects/default",
            key_id=f"trial-{secrets.token_hex(4)}",
            role=admin_pb2.KEY_ROLE_CALLER,
            ttl=duration_pb2.Duration(seconds=_DAY_S),
        )
        async with channel(self._mesh.operator) as connection:
            answer = await admin_pb2_grpc.AdminServiceStub(connection).CreateKey(request, wait_for_ready=True)
        self._name = answer.key.name
        return answer.secret

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._name:
            return
        async with channel(self._mesh.operator) as connection:
            try:
                request = admin_pb2.DeleteKeyRequest(name=self._name)
                await admin_pb2_grpc.AdminServiceStub(connection).DeleteKey(request, timeout=2)
            except grpc.aio.AioRpcError:
                return  # it expires within the day
