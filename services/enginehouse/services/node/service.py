"""NodeService: commands to a node, and what it says of itself."""

from collections.abc import AsyncIterator, Callable, Mapping

import grpc

from enginehouse.contract import Reason, RequestError
from enginehouse.services.node.replicas import NodeReplicas
from enginehouse.services.node.sight import RouterSight
from enginehouse.services.node.status import NodeStatus
from enginehouse.v1 import admin_pb2, node_pb2, node_pb2_grpc

_Context = grpc.aio.ServicerContext
_LINES_DEFAULT = 100
_SLEEP_LEVEL_DEFAULT = 1


class NodeServicer(node_pb2_grpc.NodeServiceServicer):
    """See protos/enginehouse/v1/node.proto.

    Args:
        deployments: the desired state of this moment, by id.
        sight: told what routers confirm.
        drain: drains the whole node.
    """

    def __init__(
        self,
        replicas: NodeReplicas,
        status: NodeStatus,
        deployments: Callable[[], Mapping[str, admin_pb2.Deployment]],
        sight: RouterSight,
        *,
        drain_grace_s: float,
    ) -> None:
        self._replicas = replicas
        self._status = status
        self._deployments = deployments
        self._sight = sight
        self._drain_grace_s = drain_grace_s

    async def ListReplicas(  # noqa: N802 (gRPC's name)
        self,
        request: node_pb2.ListReplicasRequest,
        context: _Context[node_pb2.ListReplicasRequest, node_pb2.ListReplicasResponse],
    ) -> node_pb2.ListReplicasResponse:
        """Every replica as it is now."""
        return node_pb2.ListReplicasResponse(replicas=self._replicas.snapshots())

    async def Load(  # noqa: N802
        self, request: node_pb2.LoadRequest, context: _Context[node_pb2.LoadRequest, node_pb2.LoadResponse]
    ) -> node_pb2.LoadResponse:
        """Starts a replica, or finds it running."""
        deployment_id = request.deployment.removeprefix("deployments/")
        deployment = self._deployments().get(deployment_id)
        if deployment is None:
            raise RequestError(f"there is no deployment {deployment_id!r}", Reason.RESOURCE_NOT_FOUND)
        return node_pb2.LoadResponse(replica=self._replicas.load(deployment, request.revision))

    async def Unload(  # noqa: N802
        self, request: node_pb2.UnloadRequest, context: _Context[node_pb2.UnloadRequest, node_pb2.UnloadResponse]
    ) -> node_pb2.UnloadResponse:
        """Drains and ends a replica. The desired state starts it again if it still places it here."""
        grace_s = request.grace.ToTimedelta().total_seconds() if request.HasField("grace") else self._drain_grace_s
        replica = await self._replicas.unload(request.replica, request.revision, grace_s)
        self._status.changed()
        return node_pb2.UnloadResponse(replica=replica)

    async def Drain(  # noqa: N802
        self, request: node_pb2.DrainRequest, context: _Context[node_pb2.DrainRequest, node_pb2.DrainResponse]
    ) -> node_pb2.DrainResponse:
        """Takes the node out of rotation, and ends its replicas when their requests have ended."""
        grace_s = request.grace.ToTimedelta().total_seconds() if request.HasField("grace") else self._drain_grace_s
        self._status.is_draining = True
        self._status.changed()
        return node_pb2.DrainResponse(requests_abandoned=await self._replicas.drain(grace_s))

    async def Sleep(  # noqa: N802
        self, request: node_pb2.SleepRequest, context: _Context[node_pb2.SleepRequest, node_pb2.SleepResponse]
    ) -> node_pb2.SleepResponse:
        """Puts a replica's engine to sleep."""
        supervisor = self._replicas.find(request.replica).supervisor
        grace_s = request.grace.ToTimedelta().total_seconds() if request.HasField("grace") else self._drain_grace_s
        return node_pb2.SleepResponse(replica=await supervisor.sleep(request.level or _SLEEP_LEVEL_DEFAULT, grace_s))

    async def Wake(  # noqa: N802
        self, request: node_pb2.WakeRequest, context: _Context[node_pb2.WakeRequest, node_pb2.WakeResponse]
    ) -> node_pb2.WakeResponse:
        """Wakes a replica's engine."""
        return node_pb2.WakeResponse(replica=await self._replicas.find(request.replica).supervisor.wake())

    async def Logs(  # noqa: N802
        self, request: node_pb2.LogsRequest, context: _Context[node_pb2.LogsRequest, node_pb2.LogsResponse]
    ) -> AsyncIterator[node_pb2.LogsResponse]:
        """The last lines, then, if asked, each new one."""
        output = self._replicas.find(request.replica).supervisor.output
        yield node_pb2.LogsResponse(lines=output.lines(request.lines_max or _LINES_DEFAULT))
        if request.follow:
            async for line in output.follow():
                yield node_pb2.LogsResponse(lines=[line])

    async def WatchStatus(  # noqa: N802
        self,
        request: node_pb2.WatchStatusRequest,
        context: _Context[node_pb2.WatchStatusRequest, node_pb2.WatchStatusResponse],
    ) -> AsyncIterator[node_pb2.WatchStatusResponse]:
        """The registration now, and at every change."""
        async for registration in self._status.watch(request.router):
            yield node_pb2.WatchStatusResponse(registration=registration)

    async def ConfirmReplicas(  # noqa: N802
        self,
        request: node_pb2.ConfirmReplicasRequest,
        context: _Context[node_pb2.ConfirmReplicasRequest, node_pb2.ConfirmReplicasResponse],
    ) -> node_pb2.ConfirmReplicasResponse:
        """Takes in which replicas a router sends requests to."""
        if not request.router:
            raise RequestError("router is empty; send the id that the status is watched with")
        self._sight.confirm(request.router, request.replicas)
        return node_pb2.ConfirmReplicasResponse()
