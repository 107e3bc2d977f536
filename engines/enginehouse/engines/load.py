"""Reading what an engine is doing, and judging from it whether the engine lives."""

from typing import Protocol

import aiohttp

from enginehouse.contract import EngineError, Reason
from enginehouse.engines.clock import Clock, within
from enginehouse.engines.grpc_loads import GrpcLoadsReader
from enginehouse.engines.metrics import LoadMeter, LoadSample, MetricsMapping, PageFormat

_PAGE_BYTES_MAX = 4 * 1024 * 1024


class PageReader(Protocol):
    """Gets a page from an engine."""

    async def read(self, address: str, path: str) -> str:
        """The text at http://`address``path`. Raises EngineError when there is none."""
        ...

    async def close(self) -> None:
        """Gives back what it holds."""
        ...


class HttpPageReader:
    """Gets pages over HTTP, on one connection that is kept open."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def read(self, address: str, path: str) -> str:
        """The text at http://`address``path`.

        Raises:
            EngineError: the engine does not answer, or not with a page of at most 4 MiB.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), trust_env=False)
        try:
            async with self._session.get(f"http://{address}{path}") as response:
                if response.status != 200:
                    raise EngineError(f"GET {path} answered {response.status}", Reason.ENGINE_FAILED)
                page = await response.content.read(_PAGE_BYTES_MAX)
        except aiohttp.ClientError as error:
            raise EngineError(f"GET {path} failed: {type(error).__name__}", Reason.ENGINE_FAILED) from error
        return page.decode(errors="replace")

    async def close(self) -> None:
        """Closes the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def page_reader(mapping: MetricsMapping | None) -> PageReader:
    """Gets the pages that a mapping reads."""
    if mapping is not None and mapping.format is PageFormat.GRPC_LOADS:
        return GrpcLoadsReader()
    return HttpPageReader()


class LoadReader:
    """Loads of one running engine. Without a mapping it knows none."""

    def __init__(self, mapping: MetricsMapping | None, address: str, pages: PageReader, clock: Clock) -> None:
        self._mapping = mapping
        self._address = address
        self._pages = pages
        self._clock = clock
        self._meter = None if mapping is None else LoadMeter(mapping)

    async def sample(self, timeout_s: float) -> LoadSample | None:
        """The load now; None for an engine that does not tell.

        Raises:
            EngineError: it should tell and does not.
            TimeoutError: not within `timeout_s`.
        """
        if self._mapping is None or self._meter is None:
            return None
        page = await within(self._clock, timeout_s, self._pages.read(self._address, self._mapping.path))
        return self._meter.read(page, monotonic_s=self._clock.monotonic(), now=self._clock.now())
