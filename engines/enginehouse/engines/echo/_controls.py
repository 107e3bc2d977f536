"""The routes by which tests hold and break the echo engine."""

from http import HTTPStatus

from aiohttp import web
from pydantic import ValidationError

from enginehouse.engines.echo._faults import FaultBody
from enginehouse.engines.echo._work import Worker
from enginehouse.engines.serving import ApiError

_GATE_POLL_S = 30.0


def add_controls(app: web.Application, worker: Worker) -> None:
    """Adds /gate and /faults to `app`."""

    async def look_at_gate(request: web.Request) -> web.Response:
        wanted = request.query.get("waiting")
        if wanted is not None:
            if not wanted.isdecimal():
                raise ApiError("waiting must be a number of requests", param="waiting")
            await worker.gate.wait_for_waiting(int(wanted), _GATE_POLL_S)
        return web.json_response({"closed": worker.gate.is_closed, "waiting": worker.gate.waiting})

    async def close_gate(request: web.Request) -> web.Response:
        worker.gate.close()
        return await look_at_gate(request)

    async def open_gate(request: web.Request) -> web.Response:
        worker.gate.open()
        return await look_at_gate(request)

    async def plan_fault(request: web.Request) -> web.Response:
        try:
            worker.faults.plan(FaultBody.model_validate_json(await request.read()))
        except ValidationError as error:
            raise ApiError(f"not a fault: {error.errors(include_input=False)[0]['msg']}") from None
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def clear_faults(_request: web.Request) -> web.Response:
        worker.faults.clear()
        return web.Response(status=HTTPStatus.NO_CONTENT)

    app.router.add_get("/gate", look_at_gate)
    app.router.add_post("/gate/close", close_gate)
    app.router.add_post("/gate/open", open_gate)
    app.router.add_post("/faults", plan_fault)
    app.router.add_delete("/faults", clear_faults)
