"""One supervised engine without a mesh::

async with Engine.launch(kind="llama-cpp", model="builtin:smollm2") as engine:
    client = openai.AsyncOpenAI(base_url=engine.base_url, api_key="none")
    messages = [{"role": "user", "content": "Say hello."}]
    answer = await client.chat.completions.create(model=engine.model, messages=messages)
    print(answer.choices[0].message.content)
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path, PurePosixPath

from enginehouse.adapters.openai import open_session
from enginehouse.contract import EngineError, Reason
from enginehouse.engines import (
    FAILED,
    READY,
    STOPPED,
    EngineHost,
    EngineRegistry,
    EngineSpec,
    ReplicaSupervisor,
    State,
    SupervisionConfig,
    Transition,
    state_name,
)
from enginehouse.engines.state import OnChange
from enginehouse.services.node.prober import DialectProber
from enginehouse.v1 import admin_pb2, common_pb2, node_pb2

LOG_FOLDER = Path(".enginehouse") / "engines"
_NUMBERS = count(1)
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9-]+")


class Engine:
    """An engine that is ready, and is kept so until its block ends."""

    def __init__(self, supervisor: ReplicaSupervisor) -> None:
        self._supervisor = supervisor

    @classmethod
    @asynccontextmanager
    async def launch(
        cls,
        *,
        kind: str,
        model: str = "",
        port: int = 0,
        name: str = "",
        settings: admin_pb2.EngineSettings | None = None,
        log_folder: Path = LOG_FOLDER,
        grace_s: float = 10.0,
        on_change: OnChange | None = None,
        idle: Callable[[], bool] | None = None,
        config: SupervisionConfig | None = None,
    ) -> AsyncIterator["Engine"]:
        """Starts an engine, waits until it has generated a token, and drains and ends it after the block.

        Args:
            kind: of engine, for example "llama-cpp".
            model: a path, a hub's "<owner>/<name>", or "builtin:<name>", as the kind takes it.
            port: on loopback. 0: a free one.
            name: that requests call the model by. Empty: from `model`.
            settings: everything else. `model_source` is `model`.
            log_folder: takes what the engine writes.
            grace_s: that requests in flight get at the end.
            on_change: told of every edge of its states.
            idle: says whether no request is on its way to it. None: its metrics say so, and one without any gets all
                of the grace.
            config: how it is supervised. None: as nodes do.

        Raises:
            RequestError: the settings can never work.
            EngineError: it failed before it was ready; the message says why, and where its output is.
        """
        given = admin_pb2.EngineSettings()
        if settings is not None:
            given.CopyFrom(settings)
        given.model_source = model
        descriptor = EngineRegistry().descriptor(kind)
        spec = EngineSpec(_replica_id(kind), kind, 1, kind, given, name or served_name(model, kind))
        session = open_session()
        try:
            supervisor = ReplicaSupervisor(
                spec,
                descriptor,
                DialectProber(kind, given.api, session, features=descriptor.offered_features(spec)),
                log_folder,
                on_change=on_change or _tell_nobody,
                idle=idle,
                config=config,
                host=await asyncio.to_thread(EngineHost.detect, log_folder, common_pb2.CHIP_CLASS_UNSPECIFIED),
                port=port,
            )
            running = asyncio.create_task(supervisor.run(), name=f"supervise {spec.replica_id}")
            engine = cls(supervisor)
            try:
                await engine._until_ready()
                yield engine
            finally:
                try:
                    await supervisor.drain(grace_s)
                except asyncio.CancelledError:  # nobody waits for the requests any more
                    running.cancel()
                    raise
                finally:
                    await asyncio.wait({running})
        finally:
            await session.close()

    @property
    def base_url(self) -> str:
        """For clients of OpenAI's API."""
        return f"http://{self._supervisor.snapshot().address}/v1"

    @property
    def model(self) -> str:
        """What requests call the model."""
        return self._supervisor.spec.served_model

    @property
    def log(self) -> Path:
        """What the engine wrote."""
        return self._supervisor.output.path

    @property
    def state(self) -> State:
        """Where it is now."""
        return self._supervisor.state

    def snapshot(self) -> node_pb2.Replica:
        """All that is known of it now: what it can do, and what it is doing."""
        return self._supervisor.snapshot()

    async def failed(self) -> str:
        """Returns once it is given up, with the reason."""
        await self._supervisor.wait_until(FAILED)
        return self._supervisor.snapshot().reason

    async def _until_ready(self) -> None:
        await self._supervisor.wait_until(READY, FAILED, STOPPED)
        if self.state != READY:
            reason = self._supervisor.snapshot().reason
            raise EngineError(
                f"the engine is {state_name(self.state)}: {reason}; what it wrote is in {self.log}",
                Reason.ENGINE_FAILED,
            )


def served_name(model: str, kind: str) -> str:
    """A name for the model at `model`: that of its file, without directories, revision and ending; or else the kind."""
    name = PurePosixPath(re.split(r"[@#]", model, maxsplit=1)[0]).name
    name = name.rpartition(":")[2].removesuffix(".gguf")
    return name.lstrip("-") or kind


def _replica_id(kind: str) -> str:
    return f"{_NOT_IN_IDS.sub('-', kind)}-{os.getpid()}-{next(_NUMBERS)}"


def _tell_nobody(replica: node_pb2.Replica, transition: Transition) -> None:
    """Takes a change and does nothing with it."""
