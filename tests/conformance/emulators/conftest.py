"""Every emulator in turn, in this process."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import pytest
import pytest_asyncio

from enginehouse.engines.emulators import EmulatorOptions, make_emulation, running
from tests.conformance.emulators.caller import Caller
from tests.conformance.emulators.habits import HABITS, Habits

Start = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture(params=sorted(HABITS))
def habits(request: pytest.FixtureRequest) -> Habits:
    """Of each engine."""
    found: Habits = HABITS[request.param]
    return found


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps no connection open, so that no request meets one of an engine that has died."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as client:
        yield client


@pytest.fixture
def start(habits: Habits, session: aiohttp.ClientSession) -> Start:
    """Starts the emulator with options of the test's own."""

    @asynccontextmanager
    async def started(**options: object) -> AsyncIterator[Caller]:
        emulation = make_emulation(habits.kind, EmulatorOptions(controls=True, **options))  # type: ignore[arg-type]
        async with running(emulation) as address:
            caller = Caller(address, session)
            await caller.until_state(phase="loading" if emulation.startup.loads_on_request else "ready")
            yield caller

    return started


@pytest_asyncio.fixture
async def caller(start: Start) -> AsyncIterator[Caller]:
    """A caller of the emulator as it is by default."""
    async with start() as made:
        yield made
