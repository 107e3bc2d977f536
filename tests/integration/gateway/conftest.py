"""One mesh per test module, with its scripts forgotten before each test."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.gateway.mesh import Mesh, running_mesh


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A mesh with one router."""
    async with running_mesh(tmp_path_factory.mktemp("gateway")) as mesh:
        yield mesh


@pytest.fixture
def mesh(shared_mesh: Mesh) -> Mesh:
    """The module's mesh, as new."""
    shared_mesh.reset()
    return shared_mesh
