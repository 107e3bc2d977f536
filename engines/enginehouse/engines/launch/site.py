"""What one replica keeps between two launches: its ports, its accelerators, a folder of its own."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from enginehouse.engines.descriptor import Assignment, EngineDescriptor, EngineSpec
from enginehouse.engines.inventory import Accelerator, Claim
from enginehouse.engines.launch.host import EngineHost
from enginehouse.engines.ports import ReservedPort


class LaunchSite:
    """Gives one replica what it needs of the host, the same at every launch.

    Args:
        reserve: gives a free port.
        host: has the accelerators.
    """

    def __init__(self, reserve: Callable[[], ReservedPort], host: EngineHost) -> None:
        self._reserve = reserve
        self._host = host
        self._ports: list[ReservedPort] = []
        self._claim: Claim | None = None
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """For the replica's own files. Its path is short: engines make sockets in it."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="enginehouse-"))
        return self._folder

    def assign(self, spec: EngineSpec, descriptor: EngineDescriptor, model: str) -> Assignment:
        """What the host gives to a launch. It reads and writes files.

        Raises:
            RequestError: the host has fewer accelerators than the replica wants.
            EngineError: others have them.
        """
        first, *more = self._reserved(1 + descriptor.traits.ports)
        return Assignment(
            first.host,
            first.number,
            model,
            ports=tuple(port.number for port in more),
            accelerators=self._accelerators(spec, descriptor),
            folder=self.folder,
        )

    def write(self, files: Mapping[Path, str], seen_at: Path) -> None:
        """Writes files into the folder. Their paths are below `seen_at`, which is where the engine sees the folder."""
        for path, text in files.items():
            target = self.folder / path.relative_to(seen_at)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    def release_ports(self) -> None:
        """Gives the ports back."""
        for port in self._ports:
            port.release()
        self._ports = []

    def close(self) -> None:
        """Gives everything back."""
        self.release_ports()
        if self._claim is not None:
            self._claim.release()
            self._claim = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _reserved(self, count: int) -> list[ReservedPort]:
        if not all(port.is_free for port in self._ports):  # a stranger took one
            self.release_ports()
        while len(self._ports) < count:
            self._ports.append(self._reserve())
        return self._ports

    def _accelerators(self, spec: EngineSpec, descriptor: EngineDescriptor) -> tuple[Accelerator, ...]:
        count = descriptor.accelerators(spec)
        if self._claim is None and count:
            self._claim = self._host.claims.claim(spec.replica_id, count, descriptor.accelerator_share(spec))
        return () if self._claim is None else self._claim.accelerators
