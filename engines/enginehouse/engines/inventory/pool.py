"""Which accelerators are whose, agreed between every supervisor on one host.

A claim is a file that its owner keeps locked. The kernel takes the lock back when the owner's process dies, however it
dies, so a claim outlives nobody; its file is then removed by whoever looks next.
"""

import fcntl
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from enginehouse.contract import EngineError, Reason, RequestError
from enginehouse.engines.inventory.accelerator import Accelerator

# Shares are written as decimals: 0.3 + 0.3 + 0.4 has to fit one accelerator.
_PARTS = 10_000


class Claim(Protocol):
    """Accelerators, or shares of them, that are one replica's own."""

    @property
    def accelerators(self) -> tuple[Accelerator, ...]:
        """Those that were given."""
        ...

    def release(self) -> None:
        """Gives them back."""
        ...


class Claims(Protocol):
    """Gives out accelerators."""

    def claim(self, owner: str, count: int, share: float) -> Claim | None:
        """Gives `count` accelerators, `share` of each one's memory, to `owner`. None: there are none to give.

        Raises:
            RequestError: there are not so many at all.
            EngineError: there are, but not now.
        """
        ...

    def has_room(self, count: int, share: float) -> bool:
        """Whether such a claim would be granted now, or can never be granted: waiting changes nothing then."""
        ...


def default_claims_folder() -> Path:
    """One folder for all of a user's supervisors on this host."""
    return Path(tempfile.gettempdir()) / f"enginehouse-{os.getuid()}" / "accelerators"


class FileClaim:
    """A claim that holds as long as its file is locked."""

    def __init__(self, accelerators: Sequence[Accelerator], path: Path, file: BinaryIO) -> None:
        self.accelerators = tuple(accelerators)
        self._path = path
        self._file = file

    def release(self) -> None:
        """Gives the accelerators back. A second call does nothing."""
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()


class AcceleratorPool:
    """The accelerators of one host.

    Args:
        accelerators: those that there are. Without any, every claim is for none.
        folder: of the claims. None: `default_claims_folder()`.
    """

    def __init__(self, accelerators: Sequence[Accelerator], folder: Path | None = None) -> None:
        self._accelerators = tuple(accelerators)
        self._folder = folder or default_claims_folder()

    def claim(self, owner: str, count: int, share: float) -> FileClaim | None:
        """Gives `count` accelerators to `owner`, those with the least left that fits. None: the host has none at all.

        Those of one claim are of one vendor and model. Two claims are on one accelerator only if their shares fit.

        Raises:
            RequestError: the host has fewer accelerators.
            EngineError: others have them; the message says who has what.
        """
        if not self._accelerators or not count:
            return None
        kinds = self._kinds()
        if max(map(len, kinds.values())) < count:
            raise RequestError(
                f"{owner} wants {count} accelerators of one kind; this host has "
                + ", ".join(f"{len(group)} {vendor} {model}" for (vendor, model), group in kinds.items())
            )
        parts = round(share * _PARTS)
        with self._lock():
            taken, owners = self._taken()
            for group in kinds.values():
                fitting = _fitting(group, taken, parts)
                fitting.sort(key=lambda one: (-taken.get(one.id, 0), one.index))
                if len(fitting) >= count:
                    return self._write(owner, sorted(fitting[:count], key=lambda one: one.index), parts)
        raise EngineError(
            f"{owner} wants {share:g} of {count} accelerators; taken are "
            + ", ".join(f"{taken[id] / _PARTS:g} of {id} by {' and '.join(owners[id])}" for id in sorted(taken)),  # noqa: A001
            Reason.ENGINE_FAILED,
        )

    def has_room(self, count: int, share: float) -> bool:
        """See `Claims`. It reads files, and promises nothing: another supervisor may claim before the caller does."""
        kinds = self._kinds()
        if not count or max(map(len, kinds.values()), default=0) < count:
            return True
        with self._lock():
            taken, _ = self._taken()
        return any(len(_fitting(group, taken, round(share * _PARTS))) >= count for group in kinds.values())

    def _kinds(self) -> dict[tuple[str, str], list[Accelerator]]:
        kinds: dict[tuple[str, str], list[Accelerator]] = {}
        for one in self._accelerators:
            kinds.setdefault((one.vendor, one.model), []).append(one)
        return kinds

    def _write(self, owner: str, accelerators: Sequence[Accelerator], parts: int) -> FileClaim:
        path = self._folder / f"{uuid.uuid4().hex}.claim"
        file = path.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps({"owner": owner, "parts": parts, "ids": [one.id for one in accelerators]}).encode())
        file.flush()
        return FileClaim(accelerators, path, file)

    def _taken(self) -> tuple[dict[str, int], dict[str, list[str]]]:
        """For each accelerator that somebody has: the parts of it that are taken, and by whom."""
        taken: dict[str, int] = {}
        owners: dict[str, list[str]] = {}
        for path in sorted(self._folder.glob("*.claim")):
            with suppress(OSError, ValueError), path.open("rb") as file:
                if _try_lock(file):  # its owner is dead
                    path.unlink(missing_ok=True)
                    continue
                claim = json.load(file)
                for id in claim["ids"]:  # noqa: A001
                    taken[id] = taken.get(id, 0) + claim["parts"]
                    owners.setdefault(id, []).append(claim["owner"])
        return taken, owners

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One process at a time reads and writes claims."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # held for the time of reading a few short files
            yield


def _fitting(group: Sequence[Accelerator], taken: Mapping[str, int], parts: int) -> list[Accelerator]:
    return [one for one in group if taken.get(one.id, 0) + parts <= _PARTS]


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
