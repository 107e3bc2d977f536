"""RouterService: decisions for internal callers, and the nodes' reports."""

from collections.abc import AsyncIterator

import grpc

from enginehouse.contract import RequestError
from enginehouse.router import Jurisdictions, Request
from enginehouse.router.record import principal_from_message, request_from_message
from enginehouse.services.router.admission import Admission
from enginehouse.services.router.check import hints_of, refusal_error
from enginehouse.services.router.settlement import Settler
from enginehouse.v1 import router_pb2, router_pb2_grpc

_Context = grpc.aio.ServicerContext


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """See protos/enginehouse/v1/router.proto."""

    def __init__(self, admission: Admission, settler: Settler, jurisdictions: Jurisdictions) -> None:
        self._admission = admission
        self._settler = settler
        self._jurisdictions = jurisdictions

    async def Route(  # noqa: N802 (gRPC's name)
        self, request: router_pb2.RouteRequest, context: _Context[router_pb2.RouteRequest, router_pb2.RouteResponse]
    ) -> router_pb2.RouteResponse:
        """Decides and holds. A refusal is an error, with its reason."""
        outcome = await self._admission.admit(self._request(request.request))
        if outcome.ticket is None:
            raise refusal_error(outcome.decision.refused)
        return router_pb2.RouteResponse(decision=outcome.message, ticket=outcome.ticket)

    async def Explain(  # noqa: N802
        self,
        request: router_pb2.ExplainRequest,
        context: _Context[router_pb2.ExplainRequest, router_pb2.ExplainResponse],
    ) -> router_pb2.ExplainResponse:
        """The same decision, holding nothing. A refusal is part of the answer."""
        return router_pb2.ExplainResponse(decision=await self._admission.explain(self._request(request.request)))

    async def Settle(  # noqa: N802
        self, request: router_pb2.SettleRequest, context: _Context[router_pb2.SettleRequest, router_pb2.SettleResponse]
    ) -> router_pb2.SettleResponse:
        """Ends a request with what it used."""
        if not request.ticket.request_id:
            raise RequestError("ticket.request_id is empty; send the ticket that the request carried")
        settlement = self._settler.reported(request)
        # The node forgets what it used once it has an answer, and nobody else may know it: not even Envoy's log.
        await self._settler.until_charged()
        if settlement is None:
            return router_pb2.SettleResponse(first=False)
        return router_pb2.SettleResponse(charged_nanousd=settlement.cost_nanousd, first=True)

    async def WatchDecisions(  # noqa: N802
        self,
        request: router_pb2.WatchDecisionsRequest,
        context: _Context[router_pb2.WatchDecisionsRequest, router_pb2.WatchDecisionsResponse],
    ) -> AsyncIterator[router_pb2.WatchDecisionsResponse]:
        """Decisions as they are made, of one tenant or of all."""
        async for decision in self._admission.watch():
            tenant = principal_from_message(decision.request.principal).tenant_name
            if request.tenant in ("", tenant):
                yield router_pb2.WatchDecisionsResponse(decision=decision)

    def _request(self, message: router_pb2.RoutingRequest) -> Request:
        for field in ("request_id", "model"):
            if not getattr(message, field):
                raise RequestError(f"request.{field} is empty")
        if not message.operation or not message.dialect:
            raise RequestError("request.operation and request.dialect must be set")
        hints = hints_of(message.hints, self._jurisdictions)
        checked = router_pb2.RoutingRequest()
        checked.CopyFrom(message)
        del checked.hints.residency[:]
        checked.hints.residency.extend(sorted(hints.residency))
        return request_from_message(checked)
