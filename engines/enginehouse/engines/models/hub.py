"""Fetching a model from a Hugging Face hub, in a process of its own that can be ended at any time.

What was fetched stays, and the next try goes on from there. Where the hub is, HF_ENDPOINT says, and who we are HF_TOKEN
(documentation of huggingface_hub, "Environment variables").
"""

import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Protocol

from enginehouse.contract import DependencyError
from enginehouse.engines.models.fetch import OnProgress
from enginehouse.engines.models.source import HubSource
from enginehouse.engines.process import ManagedProcess, OutputLog

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_STOP_GRACE_S = 2.0
_ERROR = "ERROR: "


class HubFetch(Protocol):
    """Puts a hub's model into a folder."""

    async def __call__(self, hub: HubSource, folder: Path, on_progress: OnProgress) -> None:
        """Fetches what is missing. Raises DependencyError when it cannot be had."""
        ...


async def hub_download(hub: HubSource, folder: Path, on_progress: OnProgress) -> None:
    """Fetches the files of `hub` that are missing in `folder`, which exists, and checks them.

    Raises:
        DependencyError: huggingface_hub is not installed, the hub cannot be reached, it has no such model, or what came
            is damaged.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise DependencyError(
            f"cannot fetch model {hub}: the package huggingface_hub is not installed; install it on this node, or give "
            "model_source as a path"
        )
    command = (sys.executable, "-P", "-m", "enginehouse.engines.models.hub_download", str(hub), str(folder))
    output = _HubOutput(folder.with_name(f"{folder.name}.log"), on_progress)
    process = await ManagedProcess.start(command, output=output, environment={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        exit_code = await process.wait()
    finally:
        await process.stop(grace_s=_STOP_GRACE_S)
        output.close()
    if exit_code != 0:
        raise DependencyError(
            f"cannot fetch model {hub} from the hub: {_last_error(output)}; check the id, the network, and HF_ENDPOINT "
            "and HF_TOKEN in the node's environment, or give model_source as a path"
        )


class _HubOutput(OutputLog):
    """The fetcher's output, with its progress lines told instead of kept."""

    def __init__(self, path: Path, on_progress: OnProgress) -> None:
        super().__init__(path, lines_max=100)
        self._on_progress = on_progress

    def write(self, line: bytes) -> None:
        """Appends one line, unless it tells of progress."""
        progress = _PROGRESS.fullmatch(line.decode(errors="replace"))
        if progress is None:
            super().write(line)
        else:
            self._on_progress(int(progress[1]), int(progress[2]))


def _last_error(output: OutputLog) -> str:
    lines = output.lines(100)
    errors = [line for line in lines if line.startswith(_ERROR)]
    return (errors or lines or ["it said nothing"])[-1].removeprefix(_ERROR)
