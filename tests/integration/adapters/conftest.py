"""What the tests of adapters share."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from enginehouse.adapters.openai import open_session


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A session for engines."""
    async with open_session() as opened:
        yield opened
