"""One child process: in a group of its own, tied to our life, its output drained, its end seen at once."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from enginehouse.contract import EngineError, Reason
from enginehouse.engines.process.output import OutputLog

_OUTPUT_GRACE_S = 1.0
_GUARD = Path(__file__).with_name("_guard.py")


class ManagedProcess:
    """A running child. It leads its own process group and is killed by the kernel when this process dies."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: OutputLog,
        stream: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
    ) -> None:
        self._process = process
        self._pipe = pipe
        self.output = output
        self._drained = asyncio.create_task(output.drain(stream), name=f"drain {process.pid}")

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        output: OutputLog,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Self:
        """Starts `command`; standard output and error both go to `output`.

        Args:
            command: program and arguments; the program is looked up on PATH.
            output: takes every line.
            environment: the child's whole environment. None: a copy of ours.
            folder: the child's working folder. None: ours.

        Raises:
            EngineError: the program does not exist or cannot be executed.
        """
        if not _is_executable(command[0], environment):
            raise EngineError(f"cannot start {command[0]!r}: no such program on PATH", Reason.ENGINE_FAILED)
        # A pipe of asyncio's own would delay `wait` until every descendant that inherited it has ended, too.
        read_end, write_end = os.pipe()
        stream = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(read_end, "rb", 0)
        )
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                str(_GUARD),
                str(os.getpid()),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=asyncio.subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=folder,
                start_new_session=True,
            )
        except BaseException:
            pipe.close()
            raise
        finally:
            os.close(write_end)
        return cls(process, output, stream, pipe)

    @property
    def pid(self) -> int:
        """The child's process id, which is also its group's."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Waits for the end and returns the exit code, negative for a signal."""
        return await self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the child alone. Nothing happens when it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill_group(self) -> None:
        """SIGKILL to the whole group, also when its leader has ended and left others behind."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self, *, grace_s: float, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks the child to end, waits `grace_s` seconds, then kills the group. Returns the exit code."""
        self.send_signal(number)
        try:
            async with asyncio.timeout(grace_s):
                await self.wait()
        except TimeoutError:
            pass
        finally:  # also when we are cancelled while it takes its time
            self.kill_group()
        code = await self.wait()
        await self._finish_output()
        return code

    async def _finish_output(self) -> None:
        try:  # a descendant that left the group may hold the pipe open for ever
            async with asyncio.timeout(_OUTPUT_GRACE_S):
                await asyncio.shield(self._drained)
        except TimeoutError:
            self._pipe.close()
            await self._drained


def _is_executable(program: str, environment: Mapping[str, str] | None) -> bool:
    path = None if environment is None else environment.get("PATH")
    return shutil.which(program, path=path) is not None
