"""The routes by which tests hold, look at and break an emulator. They are no part of any engine's API."""

from http import HTTPStatus

from aiohttp import web
from pydantic import ValidationError

from enginehouse.engines.emulators.core.answers import json_response
from enginehouse.engines.emulators.core.engine import EmulatedEngine
from enginehouse.engines.emulators.core.faults import PLANNED_MAX, Fault

PREFIX = "/emulator"


def add_controls(app: web.Application, engine: EmulatedEngine) -> None:
    """Adds GET /emulator/state, POST and DELETE /emulator/faults, POST /emulator/gate/{close,open} to `app`."""

    async def state(_request: web.Request) -> web.Response:
        batch = engine.batch
        return json_response(
            {
                "phase": engine.phase.value,
                "gate_closed": not engine.gate.is_set(),
                "running": batch.running,
                "waiting": batch.waiting,
                "requests": engine.counts.requests,
                "prompt_tokens": engine.counts.prompt_tokens,
                "generated_tokens": engine.counts.generated_tokens,
            }
        )

    async def close_gate(request: web.Request) -> web.Response:
        engine.gate.clear()
        return await state(request)

    async def open_gate(request: web.Request) -> web.Response:
        engine.gate.set()
        return await state(request)

    async def plan_fault(request: web.Request) -> web.Response:
        try:
            fault = Fault.model_validate_json(await request.read())
        except ValidationError as error:
            message = error.errors(include_input=False, include_url=False)[0]["msg"]
            return json_response({"error": f"not a fault: {message}"}, status=HTTPStatus.BAD_REQUEST)
        if not engine.faults.plan(fault):
            message = f"{PLANNED_MAX} faults are planned already; DELETE {PREFIX}/faults first"
            return json_response({"error": message}, status=HTTPStatus.CONFLICT)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def clear_faults(_request: web.Request) -> web.Response:
        engine.faults.clear()
        return web.Response(status=HTTPStatus.NO_CONTENT)

    app.router.add_get(f"{PREFIX}/state", state)
    app.router.add_post(f"{PREFIX}/gate/close", close_gate)
    app.router.add_post(f"{PREFIX}/gate/open", open_gate)
    app.router.add_post(f"{PREFIX}/faults", plan_fault)
    app.router.add_delete(f"{PREFIX}/faults", clear_faults)
