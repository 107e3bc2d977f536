"""vLLM's sleep mode (vllm/entrypoints/serve/dev/sleep, 0.32): VLLM_SERVER_DEV_MODE=1.

Ran against the real one on a CPU, where it lets requests wait and frees no memory. Requests at work end with the finish
reason "abort" under status 200; those that come while it sleeps wait, and no metric counts them.
"""

import asyncio
import re
from collections.abc import Iterable

from aiohttp import web

from enginehouse.engines.emulators.core.answers import json_response
from enginehouse.engines.emulators.core.emulation import get
from enginehouse.engines.emulators.core.engine import EmulatedEngine
from enginehouse.engines.emulators.core.errors import BrokenBy
from enginehouse.engines.emulators.core.metrics import Family, Sample
from enginehouse.engines.emulators.vllm import words

_LEVEL_MAX = 2
_MEMORY = frozenset({"weights", "kv_cache"})
_LETTER = re.compile(r"\S")
_MODES = ("abort", "wait", "keep")


class Sleep:
    """Whether an emulated engine sleeps.

    Attributes:
        awake: set while it does not.
    """

    def __init__(self, engine: EmulatedEngine) -> None:
        self._engine = engine
        self._level = 0
        self._asleep: set[str] = set()
        self._has_weights = True
        self.awake = asyncio.Event()
        self.awake.set()

    def routes(self) -> Iterable[web.RouteDef]:
        """What the server has in its development mode."""
        return [
            web.post("/sleep", self._fall_asleep),
            web.post("/wake_up", self._wake_up),
            get("/is_sleeping", self._is_sleeping),
            web.post("/collective_rpc", self._call),
        ]

    def family(self, labels: dict[str, str]) -> Family:
        """The metric that says how deep it sleeps."""
        states = {"awake": 0, "weights_offloaded": 1, "discard_all": 2}
        level = self._level if self._asleep else 0
        samples = [Sample(float(level == of), {**labels, "sleep_state": name}) for name, of in states.items()]
        return Family("vllm:engine_sleep_state", "gauge", "Engine sleep state.", samples)

    async def _fall_asleep(self, request: web.Request) -> web.Response:
        text, mode = request.query.get("level", "1"), request.query.get("mode", "abort")
        level = int(text) if text.isdigit() else -1
        if level > _LEVEL_MAX:
            raise words.invalid([_refused("less_than_equal", f"less than or equal to {_LEVEL_MAX}", text)])
        if level < 0:
            raise words.invalid([_refused("greater_than_equal", "greater than or equal to 0", text)])
        if mode not in _MODES:
            raise words.bad_request(f"mode must be one of {', '.join(_MODES)}", "mode")
        self.awake.clear()
        if mode == "abort":
            self._engine.abort(BrokenBy.ABORT)
        await self._engine.wait_for_idle()
        if level > 0 and not self._asleep:
            self._level, self._asleep = level, set(_MEMORY)
            self._has_weights = level < _LEVEL_MAX
        return json_response({"status": "sleeping", "level": level})

    async def _wake_up(self, request: web.Request) -> web.Response:
        tags = request.query.getall("tags", []) or None
        self._asleep -= set(tags or _MEMORY)
        if not self._asleep:
            self.awake.set()
        return json_response({"status": "sleeping" if self._asleep else "awake", "tags": tags})

    async def _is_sleeping(self, _request: web.Request) -> web.Response:
        return json_response({"is_sleeping": not self.awake.is_set()})

    async def _call(self, request: web.Request) -> web.Response:
        """Of all that can be called: to load weights again that were thrown away."""
        body = await request.json()
        if body.get("method") != "reload_weights" or "weights" in self._asleep:
            raise web.HTTPInternalServerError
        self._has_weights = True
        return json_response({"results": [None]})

    def said(self, text: str) -> str:
        """What is said for `text`: nonsense while the weights are not those of the model."""
        return text if self._has_weights else _LETTER.sub("!", text)


def _refused(kind: str, bound: str, text: str) -> dict[str, object]:
    return {
        "type": kind,
        "loc": "query.level",
        "msg": f"Input should be {bound}",
        "input": text,
        "ctx": {"le" if kind.startswith("less") else "ge": _LEVEL_MAX if kind.startswith("less") else 0},
    }
