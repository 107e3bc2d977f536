"""Keeps a copy of a bucket. After every (re)connect the copy is rebuilt from a snapshot, because a watcher that lived
through an outage of the server misses what happened meanwhile."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import nats.errors
import nats.js.errors
import structlog
from nats.js.api import KeyValueConfig
from nats.js.kv import KeyValue

from enginehouse.contract import DependencyError
from enginehouse.services.background import Background
from enginehouse.services.bus.buckets import open_bucket
from enginehouse.services.bus.connection import Bus

_log = structlog.get_logger(__name__)
_RETRY_S = 0.25
_WATCHED_S = 5.0
_GONE = ("DEL", "PURGE")


class Mirror:
    """A bucket's content, kept while the server is away.

    Args:
        bus: the connection.
        config: which bucket.
        on_change: called with the whole content after every snapshot and every update. It must not block.
    """

    def __init__(self, bus: Bus, config: KeyValueConfig, on_change: Callable[[Mapping[str, bytes]], None]) -> None:
        self._bus = bus
        self._config = config
        self._on_change = on_change
        self._entries: dict[str, bytes] = {}
        self._background = Background()
        self.snapshots = 0

    async def start(self) -> None:
        """Begins to mirror; returns at once."""
        self._background.start(self._run(), f"mirror {self._config.bucket}")

    async def stop(self) -> None:
        """Ends mirroring."""
        await self._background.stop()

    async def _run(self) -> None:
        while True:
            generation = await self._bus.connected()
            watching = asyncio.create_task(self._watch())
            lost = asyncio.create_task(self._bus.lost(generation))
            try:
                await asyncio.wait((watching, lost), return_when=asyncio.FIRST_COMPLETED)
            finally:
                watching.cancel()
                lost.cancel()
                await asyncio.gather(watching, lost, return_exceptions=True)
            await asyncio.sleep(_RETRY_S)

    async def _watch(self) -> None:
        try:
            bucket = await open_bucket(self._bus, self._config)
            watcher = await bucket.watchall()
        except (DependencyError, nats.errors.Error, nats.js.errors.APIError, TimeoutError) as error:
            _log.debug("cannot watch yet", bucket=self._config.bucket, error=repr(error))
            return
        try:
            await self._follow(watcher)
        except nats.errors.Error as error:
            _log.debug("watcher ended", bucket=self._config.bucket, error=repr(error))
        finally:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.APIError, TimeoutError):
                await watcher.stop()  # type: ignore[no-untyped-call]

    async def _follow(self, watcher: KeyValue.KeyWatcher) -> None:
        snapshot: dict[str, bytes] | None = {}
        while True:
            try:
                entry = await watcher.updates(timeout=_WATCHED_S)  # type: ignore[no-untyped-call]
            except nats.errors.TimeoutError:
                continue
            if not isinstance(entry, KeyValue.Entry):  # the snapshot is complete
                if snapshot is not None:
                    self._entries, snapshot = snapshot, None
                    self.snapshots += 1
                    self._on_change(self._entries)
                continue
            target = self._entries if snapshot is None else snapshot
            if entry.operation in _GONE or entry.value is None:
                target.pop(entry.key, None)
            else:
                target[entry.key] = entry.value
            if snapshot is None:
                self._on_change(self._entries)
