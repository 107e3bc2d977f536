"""Which limits a request would hold in."""

import uuid

from enginehouse.cli.explain import ask
from enginehouse.cli.tour.guide import Tour
from enginehouse.v1 import common_pb2, router_pb2


async def holds_in(tour: Tour, tenant: str, model: str) -> bool:
    """Whether a chat of one of the tour's tenants would hold in the tenant's own limit."""
    request = router_pb2.RoutingRequest(
        request_id=f"tour-{uuid.uuid4()}",
        operation=common_pb2.OPERATION_CHAT,
        dialect=common_pb2.DIALECT_OPENAI,
        model=model,
        prompt_text_bytes=3,
        message_count=1,
        principal=router_pb2.Principal(
            organization="default", tenant=tour.tenant_id(tenant), project="tour", key="tour"
        ),
    )
    decision = await ask(tour.mesh, request)
    return tour.tenant_id(tenant) in {hold.limit for hold in decision.holds}
