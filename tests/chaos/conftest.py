"""The meshes of the chaos tests: one whose processes are killed one by one, and ones of their own for the rest."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.caller import Caller
from tests.support.mesh import UserMesh
from tests.support.operator import Operator, operate

pytest.register_assert_rewrite("tests.chaos.traffic", "tests.e2e.dialects")
SHARED = Path(__file__).with_name("mesh.yaml")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMesh]:
    """The mesh of a module. However often it was hurt, in the end nothing of it is left."""
    shared = UserMesh(tmp_path_factory.mktemp("mesh"), SHARED.read_text())
    try:
        shared.start()
        yield shared
        shared.stop()
    finally:
        shared.abandon()


@pytest.fixture
async def operator(mesh: UserMesh) -> AsyncIterator[Operator]:
    """The operator of the shared mesh, once that is whole again."""
    mesh.wait_until_ready()
    async with operate(mesh) as one:
        yield one


@pytest.fixture
async def caller(operator: Operator) -> Caller:
    """A caller without a rule and without a limit of its own."""
    return await operator.caller()


@pytest.fixture
def new_mesh(tmp_path: Path) -> Iterator[Callable[[str], UserMesh]]:
    """Makes meshes for one test; what the test does not stop is killed."""
    made: list[UserMesh] = []

    def make(settings: str = "") -> UserMesh:
        made.append(UserMesh(tmp_path / f"mesh-{len(made)}", settings or SHARED.read_text()))
        return made[-1]

    yield make
    for one in made:
        one.abandon()
