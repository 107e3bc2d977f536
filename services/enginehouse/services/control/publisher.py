"""Publishes what the mesh should be: the database's resources, in a store that everybody watches."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import structlog
from google.protobuf.message import Message
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from enginehouse.contract import EnginehouseError
from enginehouse.services.control.database import Database
from enginehouse.services.control.deployments import deployment_of
from enginehouse.services.control.keys import key_of
from enginehouse.services.control.limit_resources import limit_message
from enginehouse.services.control.policies import published_policy_set
from enginehouse.services.control.schema import DeploymentRow, KeyRow, LimitRow, TenantRow
from enginehouse.services.control.secret_keys import SCHEME
from enginehouse.services.control.tenants import tenant_of

_log = structlog.get_logger(__name__)

# A key lets requests in, so it comes after all that restrains them, and goes before.
_ORDER = ("policies.", "limits.", "tenants.", "deployments.", "keys.")


class DesiredStore(Protocol):
    """A key-value store. Its calls raise DependencyError while it is away."""

    async def put(self, key: str, value: bytes) -> None:
        """Writes a value."""
        ...

    async def delete(self, key: str) -> None:
        """Removes a value; nothing happens when there is none."""
        ...

    async def entries(self) -> dict[str, bytes]:
        """Every key and value."""
        ...


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts while the store is away, in seconds, doubling."""

    first_s: float = 0.2
    longest_s: float = 5.0

    def pause_s(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        return min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))


class Publisher:
    """Keeps the store equal to the database.

    A change only marks the store as behind; one task then brings over all that differs. A store that is away loses
    nothing thereby: it is still behind when it comes back.
    """

    def __init__(self, database: Database, store: DesiredStore, backoff: Backoff = Backoff()) -> None:
        self._database = database
        self._store = store
        self._backoff = backoff
        self._behind = asyncio.Event()
        self._published: dict[str, bytes] = {}
        self._is_trusted = False
        self._turn = asyncio.Lock()
        self._round = asyncio.Condition()
        self.is_current = False

    def mark_behind(self) -> None:
        """The database has changed."""
        self.is_current = False
        self._behind.set()

    def distrust(self) -> None:
        """The store was away, or another one has taken its place: compare everything."""
        self._is_trusted = False
        self.mark_behind()

    async def run(self) -> None:
        """Publishes for ever, starting with a comparison of everything."""
        self.distrust()
        failures = 0
        while True:
            await self._behind.wait()
            self._behind.clear()
            try:
                await self._publish()
                failures = 0
            except EnginehouseError as error:
                failures += 1
                if failures == 1:
                    _log.warning("desired state not published; it will be when the store is back", error=error.message)
                self.distrust()
                await asyncio.sleep(self._backoff.pause_s(failures))

    async def reconcile(self) -> None:
        """Compares everything now: puts what differs, deletes what is not there.

        Raises:
            DependencyError: the store or the database is away.
        """
        self._is_trusted = False
        try:
            await self._publish()
        except EnginehouseError:
            self.distrust()
            raise

    async def _publish(self) -> None:
        async with self._turn:
            if not self._is_trusted:
                self._is_trusted = True  # before it is read: distrust that comes from now on is about later
                self._published = {key: value for key, value in (await self._store.entries()).items() if _is_ours(key)}
            async with self._database.read() as session:
                desired = {key: value async for key, value in _desired(session)}
            for key in sorted(desired, key=_rank):
                if self._published.get(key) != desired[key]:
                    await self._store.put(key, desired[key])
            for key in sorted(self._published.keys() - desired.keys(), key=_rank, reverse=True):
                await self._store.delete(key)
            self._published = desired
            self.is_current = not self._behind.is_set()
        async with self._round:
            self._round.notify_all()

    async def wait_until_current(self) -> None:
        """Waits until everything that was committed before this call is in the store."""
        async with self._round:
            await self._round.wait_for(lambda: self.is_current)


def _is_ours(key: str) -> bool:
    return key.startswith(_ORDER)


def _rank(key: str) -> tuple[int, str]:
    return next(rank for rank, prefix in enumerate(_ORDER) if key.startswith(prefix)), key


async def _desired(session: AsyncSession) -> AsyncIterator[tuple[str, bytes]]:
    policy_set = await published_policy_set(session)
    yield policy_set.name.replace("/", "."), _bytes(policy_set)
    for limit in await session.scalars(select(LimitRow)):
        yield f"limits.{limit.id}", _bytes(limit_message(limit))
    for tenant in await session.scalars(select(TenantRow)):
        yield f"tenants.{tenant.organization}.{tenant.id}", _bytes(tenant_of(tenant))
    for deployment in await session.scalars(select(DeploymentRow)):
        yield f"deployments.{deployment.id}", _bytes(deployment_of(deployment))
    for row in await session.scalars(select(KeyRow)):
        key = key_of(row)
        key.secret_sha256 = row.secret_sha256
        yield f"keys.{row.prefix.removeprefix(SCHEME)}", _bytes(key)


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
