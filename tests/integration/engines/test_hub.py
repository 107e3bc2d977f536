"""Models from a hub: fetched by the hub's real client from a small hub on loopback."""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from enginehouse.contract import DependencyError, RequestError
from enginehouse.engines import ModelStore
from enginehouse.engines.models.source import HubSource, hub_source, with_details
from tests.integration.engines.hub import COMMIT, Hub, running

pytest.importorskip("huggingface_hub")

WEIGHTS = os.urandom(12_000_000)  # the client writes 10 MiB at a time
FILES = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"the same",
    "tf_model.h5": b"the same",
    "model.Q4.gguf": b"the same, smaller",
}


@pytest_asyncio.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    """A hub where the client looks for one."""
    async with running(Hub(dict(FILES))) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield found


async def test_model_is_fetched_with_progress_and_only_in_the_format_that_engines_read(
    hub: Hub, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    folder = await ModelStore(tmp_path).acquire("owner/tiny", lambda *done: told.append(done))
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names == {"config.json", "model.safetensors", "model.Q4.gguf"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    total = sum(len(FILES[name]) for name in names)
    assert told[-1] == (total, total)


async def test_complete_model_needs_no_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await ModelStore(tmp_path).acquire("owner/tiny")
    downloads = len(hub.downloads)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert await ModelStore(tmp_path).acquire("owner/tiny") == first
    assert len(hub.downloads) == downloads


async def test_download_that_broke_off_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    hub.cut_at = 11_000_000
    source = f"owner/tiny:model.safetensors@{COMMIT}"
    with suppress(DependencyError):  # the client may go on by itself, or leave that to the next try
        await ModelStore(tmp_path).acquire(source)
    path = await ModelStore(tmp_path).acquire(source)
    assert path.read_bytes() == WEIGHTS
    assert hub.ranges
    assert int(hub.ranges[0].removeprefix("bytes=").split("-")[0]) > 0


async def test_damaged_file_is_deleted_and_said(hub: Hub, tmp_path: Path) -> None:
    hub.damaged = True
    with pytest.raises(DependencyError, match=r"model.Q4.gguf has sha256 .*, expected .*; it was deleted"):
        await ModelStore(tmp_path).acquire("owner/tiny:model.Q4.gguf")
    hub.damaged = False
    path = await ModelStore(tmp_path).acquire("owner/tiny:model.Q4.gguf")
    assert path.read_bytes() == FILES["model.Q4.gguf"]


async def test_file_that_the_model_does_not_have_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match=r"owner/tiny has no file other\.gguf"):
        await ModelStore(tmp_path).acquire("owner/tiny:other.gguf")


async def test_hub_that_cannot_be_reached_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(DependencyError, match=r"hub at http://127.0.0.1:9 cannot be reached .* model_source as a path"):
        await ModelStore(tmp_path).acquire("owner/tiny")


async def test_missing_client_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="huggingface_hub is not installed"):
        await ModelStore(tmp_path).acquire("owner/tiny")


async def test_path_is_a_path_and_its_checksum_is_held_against_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(b"weights")
    good, store = hashlib.sha256(b"weights").hexdigest(), ModelStore(tmp_path / "cache")
    assert await store.acquire(f"{path}#sha256={good}") == path
    with pytest.raises(RequestError, match=f"has sha256 {good}, expected {'0' * 64}"):
        await store.acquire(f"{path}#sha256={'0' * 64}")
    with pytest.raises(RequestError, match="is a folder; a checksum is of one file"):
        await store.acquire(f"{tmp_path}#sha256={good}")
    assert await store.acquire(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("owner/name", HubSource("owner/name")),
        ("owner/name@v1", HubSource("owner/name", revision="v1")),
        ("owner/name:a/b.gguf@v1", HubSource("owner/name", "a/b.gguf", "v1")),
        ("owner/name:../secret", None),
        ("/owner/name", None),
        ("../name", None),
        ("name", None),
    ],
)
def test_hub_sources_are_told_from_paths(source: str, expected: HubSource | None) -> None:
    assert hub_source(source) == expected
    assert expected is None or str(expected) == source


def test_details_are_given_once() -> None:
    assert with_details("a/b", "v1", "A" * 64) == f"a/b@v1#sha256={'a' * 64}"
    for given in (("a/b@v1", "v2", ""), ("a#sha256=0", "", "0" * 64), ("a", "", "short")):
        with pytest.raises(RequestError):
            with_details(*given)
