"""A small mesh: one node, echo engines."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.mesh import UserMesh
from tests.support.operator import Operator, operate

SETTINGS = """
place: eu/de
door: {port: 0, longest_request_s: 60, check_timeout_ms: 10000, drain_grace_s: 1}  # a busy machine has time for a check
nats: {port: 0}
nodes:
  - {name: eu-de, place: eu/de, drain_grace_s: 1}
deployments:
  - name: echo
    engine: {kind: echo, context_tokens_max: 16384, output_tokens_max: 256, parallel: 64, arguments: [--test-controls]}
    placements:
      - {node: eu-de, price: {input: 1, output: 2}, in_flight_max: 256}
tenants:
  - name: anywhere
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UserMesh]:
    """The mesh that the tests of a module share."""
    shared = UserMesh(tmp_path_factory.mktemp("mesh"), SETTINGS)
    try:
        shared.start()
        yield shared
        shared.stop()
    finally:
        shared.abandon()


@pytest.fixture
async def operator(mesh: UserMesh) -> AsyncIterator[Operator]:
    """Its operator."""
    async with operate(mesh) as one:
        yield one
