from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enginehouse.services.bus import Bus
from tests.support.nats import NatsServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    server = NatsServer(tmp_path)
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    bus = Bus(server.url, "test")
    await bus.start()
    yield bus
    await bus.stop()
