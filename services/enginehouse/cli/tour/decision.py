"""Stop 2: the decision behind it."""

import uuid

from enginehouse.cli.explain import ask, show
from enginehouse.cli.tour.guide import MODEL, Tour
from enginehouse.v1 import common_pb2, router_pb2


async def decision(tour: Tour) -> None:
    """Explains the decision that the chat before got."""
    tour.heading(2, "The decision behind it (enginehouse explain)")
    request = router_pb2.RoutingRequest(
        request_id=f"tour-{uuid.uuid4()}",
        operation=common_pb2.OPERATION_CHAT,
        dialect=common_pb2.DIALECT_OPENAI,
        model=MODEL,
        prompt_text_bytes=36,
        message_count=1,
        output_tokens_max=24,
        principal=router_pb2.Principal(
            organization="default", tenant=tour.tenant_id("anywhere"), project="tour", key="tour"
        ),
    )
    tour.tell("for a tenant without a rule:")
    show(await ask(tour.mesh, request), tour.console)
    tour.tell("\nfor a tenant whose data must stay in the EU:")
    request.principal.tenant = tour.tenant_id("europe")
    show(await ask(tour.mesh, request), tour.console)
