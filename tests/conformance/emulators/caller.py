"""A caller of one emulator, over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.conformance.emulators.habits import Heard, parse_frames
from tests.support.waiting import until_async

HELLO = "Hello big world"
LONG = " ".join(f"w{number}" for number in range(200))


def chat(text: str, **members: object) -> dict[str, object]:
    """The body of a chat with one message."""
    return {"messages": [{"role": "user", "content": text}], **members}


class Caller:
    """HTTP to one emulator that was started with its controls."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self.address = address
        self._session = session

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text."""
        async with self._session.get(f"http://{self.address}{path}") as answer:
            return answer.status, await answer.text()

    async def post(self, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON; text where it is no JSON."""
        async with self._session.post(f"http://{self.address}{path}", json=body) as answer:
            if answer.content_type == "application/json":
                try:
                    return answer.status, await answer.json()
                except ValueError:
                    return answer.status, None
            return answer.status, await answer.text()

    async def stream(self, path: str, body: object) -> tuple[int, Heard]:
        """A stream to its end, however that comes."""
        async with self.streaming(path, body) as answer:
            raw, is_cut = b"", False
            try:
                async for chunk in answer.content.iter_any():
                    raw += chunk
            except aiohttp.ClientError:
                is_cut = True
            return answer.status, parse_frames(raw, is_cut)

    @asynccontextmanager
    async def streaming(self, path: str, body: object) -> AsyncIterator[aiohttp.ClientResponse]:
        """A stream that the caller reads; leaving closes the connection."""
        async with self._session.post(f"http://{self.address}{path}", json=body) as answer:
            yield answer
            answer.close()

    @asynccontextmanager
    async def raw_post(self, path: str, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """Bytes that are said to be JSON."""
        headers = {"Content-Type": "application/json"}
        async with self._session.post(f"http://{self.address}{path}", data=body, headers=headers) as answer:
            yield answer

    async def state(self) -> dict[str, Any]:
        """GET /emulator/state."""
        async with self._session.get(f"http://{self.address}/emulator/state") as answer:
            state: dict[str, Any] = await answer.json()
            return state

    async def until_state(self, **wanted: object) -> None:
        """Returns once the state has these members."""

        async def has_them() -> bool:
            state = await self.state()
            return all(state[name] == value for name, value in wanted.items())

        await until_async(has_them, f"the emulator's state has {wanted}")

    async def close_gate(self) -> None:
        """Holds every request before its first token."""
        await self.post("/emulator/gate/close")

    async def open_gate(self) -> None:
        """Lets them go on."""
        await self.post("/emulator/gate/open")

    async def plan(self, kind: str, after_tokens: int = 0, requests: int = 1) -> None:
        """Plans a fault."""
        status, _ = await self.post(
            "/emulator/faults", {"kind": kind, "after_tokens": after_tokens, "requests": requests}
        )
        assert status == 204

    async def metric(self, path: str, name: str) -> float:
        """The value of a metric's first sample."""
        _, page = await self.get(path)
        values = [line.rsplit(" ", 1) for line in page.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return float(values[0][1])
