"""Envoy's own admin server, on loopback."""

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from enginehouse.contract import DependencyError

_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class AccessLogCounters:
    """How far Envoy's access log has come.

    Args:
        emitted_lines: lines that requests have written since Envoy started, whether in the file yet or not.
        buffered_bytes: what of them is not in the file yet.
    """

    emitted_lines: int
    buffered_bytes: int


class EnvoyAdmin:
    """A client of one Envoy's admin server.

    Every call raises DependencyError when the server does not answer.
    """

    def __init__(self, port: int, session: aiohttp.ClientSession) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)

    async def is_ready(self) -> bool:
        """Whether Envoy takes requests: its clusters are initialized and its port is open."""
        status, _ = await self._call("GET", "/ready")
        return status == 200

    async def access_log_counters(self) -> AccessLogCounters:
        """The access log's counters. They count all of Envoy's file logs; ours is the only one."""
        values = await self._stats(r"^filesystem\.write_")
        return AccessLogCounters(
            emitted_lines=values["filesystem.write_buffered"],
            buffered_bytes=values["filesystem.write_total_buffered"],
        )

    async def requests_in_flight(self) -> int:
        """Requests that clients are waiting for."""
        values = await self._stats(r"^http\.main\.downstream_rq_active$")
        return values.get("http.main.downstream_rq_active", 0)

    async def drain(self) -> None:
        """Asks clients to go elsewhere, and closes the port once the drain time is over."""
        await self._call("POST", "/drain_listeners?graceful")

    async def reopen_logs(self) -> None:
        """Makes Envoy open its access log anew, after it was renamed."""
        await self._call("POST", "/reopen_logs")

    async def _stats(self, regex: str) -> Mapping[str, int]:
        _, text = await self._call("GET", "/stats", {"filter": regex})
        pairs = (line.rsplit(": ", 1) for line in text.splitlines() if ": " in line)
        return {name: int(value) for name, value in pairs}

    async def _call(self, method: str, path: str, query: Mapping[str, str] | None = None) -> tuple[int, str]:
        try:
            async with self._session.request(method, self._url + path, params=query, timeout=self._timeout) as response:
                return response.status, await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DependencyError(f"Envoy's admin server at {self._url} does not answer: {error}") from error
