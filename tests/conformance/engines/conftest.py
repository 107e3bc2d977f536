"""The engine of each class, and what becomes of the results."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio

for _name in ("answers", "case", "features", "life", "subject"):
    pytest.register_assert_rewrite(f"tests.conformance.engines.{_name}")

from tests.conformance.engines.case import MARK, Cell  # noqa: E402 (asserts are rewritten on import)
from tests.conformance.engines.results import BUILD_FOLDER, PROPERTY, EngineResult, Finding, Recorder  # noqa: E402
from tests.conformance.engines.subject import Running, Subject, started  # noqa: E402


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The engine of the class, for all of its cases."""
    suite = request.cls
    assert suite is not None
    assert issubclass(suite, Subject)
    subject = suite()
    async with started(subject, tmp_path_factory.mktemp(subject.kind)) as engine:
        engine.version = await subject.version(engine)
        yield engine


@pytest.fixture
def cell(request: pytest.FixtureRequest, running: Running) -> Iterator[Cell]:
    """The cell that the case is about."""
    made = Cell()
    yield made
    marker = request.node.get_closest_marker(MARK)
    subject = running.subject
    row = EngineResult(
        suite=type(subject).__name__,
        title=subject.title,
        kind=subject.kind,
        is_real=subject.is_real,
        version=running.version,
        date=datetime.now(UTC).date().isoformat(),
        cells={marker.args[0]: Finding(result=made.result, reason=made.reason)},
    )
    request.node.user_properties.append((PROPERTY, row.model_dump_json()))


def pytest_configure(config: pytest.Config) -> None:
    """Collects results, in the process that hears of all tests."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(BUILD_FOLDER))
