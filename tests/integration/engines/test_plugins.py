"""The engine of docs/engines-plugins.md, installed as its readers would install it."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from enginehouse.contract import EnginehouseError, InternalError
from enginehouse.engines import EngineRegistry
from enginehouse.services.single import Engine
from enginehouse.v1 import admin_pb2

DOCUMENT = Path(__file__).parents[3] / "docs" / "engines-plugins.md"


def block(language: str) -> str:
    """The document's first block of code in `language`."""
    match = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert match is not None
    return match[1]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The document's package, and one that is broken, where Python finds installed packages."""
    (tmp_path / "house_engine.py").write_text(block("python"))
    (tmp_path / "broken_engine.py").write_text("raise RuntimeError('it was built for another version')\n")
    metadata = tmp_path / "house-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1.0\n")
    entry_points = block("toml").replace('[project.entry-points."enginehouse.engines"]', "[enginehouse.engines]")
    (metadata / "entry_points.txt").write_text(entry_points.replace('"', "") + "broken = broken_engine:Engine\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("house_engine", "broken_engine"):
        sys.modules.pop(name, None)


async def test_documented_engine_is_found_and_runs(installed: Path) -> None:
    settings = admin_pb2.EngineSettings(program=sys.executable)
    async with Engine.launch(kind="house", name="mine", settings=settings, log_folder=installed / "logs") as engine:
        assert engine.snapshot().engine == "house"
        assert engine.log.is_file()


def test_package_that_breaks_breaks_only_its_own_kind(installed: Path) -> None:
    registry = EngineRegistry()
    assert {"house", "broken", "echo"} <= set(registry.kinds)
    with pytest.raises(InternalError, match=r"engine 'broken': cannot load broken_engine:Engine: .*another version"):
        registry.descriptor("broken")
    assert registry.descriptor("house").kind == "house"


def test_class_that_cannot_be_made_is_named(installed: Path) -> None:
    (installed / "needy_engine.py").write_text(block("python") + "\n    def __init__(self, needed):\n        pass\n")
    point = EntryPoint("house", "needy_engine:HouseEngine", "enginehouse.engines")
    with pytest.raises(EnginehouseError, match="engine 'house': cannot load needy_engine:HouseEngine"):
        EngineRegistry(lambda: [point]).descriptor("house")
