"""The fetcher: ``python -m enginehouse.engines.models.hub_download SOURCE FOLDER``.

Writes "Progress DONE of ALL" in bytes, twice a second, and "ERROR: ..." when it fails.
"""

import hashlib
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enginehouse.engines.models.source import HubSource, hub_source

_TELL_S = 0.5
# Other formats of the same weights; no engine of ours reads them.
_UNWANTED = (".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".mlmodel", ".pth")
_CACHE = ".cache"
_EXIT_FAILED = 1
_EXIT_USAGE = 2


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a model. `sha256` is empty where the hub does not know it."""

    path: str
    size_bytes: int
    sha256: str


def main(arguments: Sequence[str]) -> int:
    """Fetches a model and returns the exit code."""
    if len(arguments) != 2 or (hub := hub_source(arguments[0])) is None:
        _say("ERROR: usage: SOURCE FOLDER")
        return _EXIT_USAGE
    try:
        fetch(hub, Path(arguments[1]))
    except Exception as error:  # noqa: BLE001 (this is the end of the process: whatever it was is told in one line)
        _say(f"ERROR: {_told(error)}")
        return _EXIT_FAILED
    return 0


def fetch(hub: HubSource, folder: Path) -> None:
    """Fetches what is missing of `hub` into `folder`.

    A revision is looked up once: a model that is complete is not asked for again, so that it starts without a hub.

    Raises:
        OSError: the hub cannot be reached, or a file is damaged (with all that huggingface_hub raises).
    """
    complete = folder / _CACHE / f"complete{'-' + hub.file.replace('/', '--') if hub.file else ''}"
    if complete.is_file():
        return
    from huggingface_hub import hf_hub_download

    commit, files = remote_files(hub)
    total = sum(file.size_bytes for file in files)
    done = threading.Event()
    teller = threading.Thread(target=_tell, args=(folder, total, done), daemon=True)
    teller.start()
    try:
        for file in files:
            hf_hub_download(hub.repository, file.path, revision=commit, local_dir=folder)
            verify(folder / file.path, file.sha256)
    finally:
        done.set()
        teller.join()
    _say(f"Progress {total} of {total}")
    complete.parent.mkdir(exist_ok=True)
    complete.write_text(commit)


def remote_files(hub: HubSource) -> tuple[str, list[RemoteFile]]:
    """The commit that the revision means now, and the files that are wanted of it, smallest first.

    Raises:
        FileNotFoundError: the model has no such file.
    """
    from huggingface_hub import HfApi

    info = HfApi().model_info(hub.repository, revision=hub.revision or None, files_metadata=True)
    files = [RemoteFile(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else "") for one in info.siblings or ()]
    if hub.file:
        wanted = [file for file in files if file.path == hub.file]
        if not wanted:
            raise FileNotFoundError(f"{hub.repository} has no file {hub.file}")
    else:
        wanted = [file for file in files if not file.path.endswith(_UNWANTED)]
        has_safetensors = any(file.path.endswith(".safetensors") for file in wanted)
        wanted = [file for file in wanted if not (has_safetensors and file.path.endswith(".bin"))]
    return info.sha or hub.revision, sorted(wanted, key=lambda file: file.size_bytes)


def verify(path: Path, sha256: str) -> None:
    """Deletes a file that has another checksum.

    Raises:
        OSError: it had.
    """
    if not sha256:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        path.unlink()
        raise OSError(f"{path.name} has sha256 {found}, expected {sha256}; it was deleted")


def _told(error: Exception) -> str:
    """One line about it."""
    name = type(error).__name__
    if isinstance(error, OSError) and ("Connect" in name or "Timeout" in name):
        from huggingface_hub import constants

        return f"the hub at {constants.ENDPOINT} cannot be reached ({name})"
    return f"{name}: {' '.join(str(error).split())[:500]}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _tell(folder: Path, total: int, done: threading.Event) -> None:
    while not done.wait(_TELL_S):
        size = 0
        for path in folder.rglob("*"):
            try:
                size += path.stat().st_size if path.is_file() else 0
            except OSError:  # it was moved to its place just now
                continue
        _say(f"Progress {min(size, total)} of {total}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
