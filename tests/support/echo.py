"""The test controls of a running echo engine: its gate, its faults, its counters."""

from dataclasses import dataclass
from typing import Literal

import aiohttp

FaultKind = Literal["die", "error_frame", "hang", "unavailable", "refuse"]
PROBE_PROMPT_TOKENS = 8
"""Of the node's liveness probe: one byte, and the template around it. It generates one token."""


@dataclass(frozen=True, slots=True)
class EchoCounts:
    """The engine's own counts."""

    running: int
    waiting: int
    prompt_tokens: int
    generated_tokens: int

    def generated_since(self, earlier: "EchoCounts", prompt_tokens: int) -> int:
        """Tokens that were generated for requests which read `prompt_tokens`; probes' own are taken out.

        A probe's prompt is always of the same length, so the surplus in prompt tokens tells how many there were.
        """
        surplus = self.prompt_tokens - earlier.prompt_tokens - prompt_tokens
        probes, rest = divmod(surplus, PROBE_PROMPT_TOKENS)
        assert rest == 0, f"{surplus} prompt tokens too many are no whole number of probes"
        return self.generated_tokens - earlier.generated_tokens - probes


class EchoControls:
    """One echo engine, started with ``--test-controls``.

    Args:
        address: host:port.
        session: for HTTP.
    """

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self.address = address
        self._url = f"http://{address}"
        self._session = session

    async def close_gate(self) -> None:
        """Holds every request from now on."""
        await self._post("/gate/close")

    async def open_gate(self) -> None:
        """Lets them pass."""
        await self._post("/gate/open")

    async def until_waiting_at_gate(self, wanted: int) -> None:
        """Waits until that many wait there. The node's liveness probe may be one more."""
        async with self._session.get(f"{self._url}/gate", params={"waiting": str(wanted)}) as answer:
            answer.raise_for_status()
            waiting = int((await answer.json())["waiting"])
        assert wanted <= waiting <= wanted + 1, f"{waiting} wait at the gate of {self.address}, not {wanted}"

    async def plan_fault(self, kind: FaultKind, *, after_tokens: int = 0, requests: int = 1) -> None:
        """The next `requests` go wrong, and what was planned before does not.

        The node's liveness check probes an engine that has done nothing since the last check, and a probe would take
        the fault. So it is given something to see first, which counts as a probe does.
        """
        await self.clear_faults()
        await self._post("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1})
        await self._post("/faults", {"kind": kind, "after_tokens": after_tokens, "requests": requests})

    async def clear_faults(self) -> None:
        """None goes wrong."""
        async with self._session.delete(f"{self._url}/faults") as answer:
            answer.raise_for_status()

    async def counts(self) -> EchoCounts:
        """Its counters now."""
        async with self._session.get(f"{self._url}/metrics") as answer:
            answer.raise_for_status()
            lines = (await answer.text()).splitlines()
        values = dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))
        names = ("requests_running", "requests_waiting", "prompt_tokens_total", "generation_tokens_total")
        return EchoCounts(*(int(float(values[f"echo:{name}"])) for name in names))

    async def _post(self, path: str, body: object = None) -> None:
        async with self._session.post(f"{self._url}{path}", json=body) as answer:
            answer.raise_for_status()
