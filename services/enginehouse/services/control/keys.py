"""API keys."""

from collections.abc import Callable

from google.protobuf import duration_pb2
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from enginehouse.contract import Reason, RequestError
from enginehouse.services.control.durations import ms_of_duration, timestamp_of_ms
from enginehouse.services.control.edit import Edit, exists, not_found
from enginehouse.services.control.names import WILDCARD, KeyName, ProjectName, TenantName
from enginehouse.services.control.schema import KeyRow, ProjectRow, TenantRow
from enginehouse.services.control.secret_keys import SecretKey, hash_of, is_secret, new_secret_key, prefix_of
from enginehouse.v1 import admin_pb2
from enginehouse.v1.admin_pb2 import KeyRole

_INVALID = "this key is not known, or has expired, or was deleted"


async def create_key(
    edit: Edit,
    name: KeyName,
    role: KeyRole.ValueType,
    ttl: duration_pb2.Duration | None,
    new_secret: Callable[[], SecretKey] = new_secret_key,
) -> admin_pb2.CreateKeyResponse:
    """Creates a key, and its project if this is the first key in it. The answer alone holds the secret."""
    if role not in (admin_pb2.KEY_ROLE_CALLER, admin_pb2.KEY_ROLE_ADMIN):
        raise RequestError("role must be KEY_ROLE_CALLER or KEY_ROLE_ADMIN")
    ttl_ms = None if ttl is None else ms_of_duration(ttl)
    if ttl_ms is not None and ttl_ms <= 0:
        raise RequestError(f"ttl is {ttl_ms} ms; it must be positive, or absent for a key that does not expire")
    if await edit.session.get(TenantRow, (name.organization, name.tenant)) is None:
        raise not_found(TenantName(name.organization, name.tenant))
    project = (name.organization, name.tenant, name.project)
    if await edit.session.get(ProjectRow, project) is None:
        edit.session.add(
            ProjectRow(organization=name.organization, tenant=name.tenant, id=name.project, create_ms=edit.wall_ms)
        )
        await edit.session.flush()
    if await edit.session.get(KeyRow, (*project, name.key)) is not None:
        raise exists(name)
    secret = new_secret()
    row = KeyRow(
        organization=name.organization,
        tenant=name.tenant,
        project=name.project,
        id=name.key,
        role=role,
        prefix=secret.prefix,
        secret_sha256=hash_of(secret.text),
        create_ms=edit.wall_ms,
        expire_ms=None if ttl_ms is None else edit.wall_ms + ttl_ms,
    )
    edit.session.add(row)
    edit.changed(str(name), "created")
    return admin_pb2.CreateKeyResponse(key=key_of(row), secret=secret.text)


async def list_keys(session: AsyncSession, parent: ProjectName) -> list[admin_pb2.Key]:
    """The keys of a project, or of several for ``-``, by name."""
    query = select(KeyRow).order_by(KeyRow.organization, KeyRow.tenant, KeyRow.project, KeyRow.id)
    for column, wanted in (
        (KeyRow.organization, parent.organization),
        (KeyRow.tenant, parent.tenant),
        (KeyRow.project, parent.project),
    ):
        if wanted != WILDCARD:
            query = query.where(column == wanted)
    return [key_of(row) for row in await session.scalars(query)]


async def delete_key(edit: Edit, name: KeyName) -> None:
    """Deletes a key. Its project stays."""
    row = await edit.session.get(KeyRow, (name.organization, name.tenant, name.project, name.key))
    if row is None:
        raise not_found(name)
    await edit.session.delete(row)
    edit.changed(str(name), "deleted")


async def name_of_admin(session: AsyncSession, secret: str, now_ms: int) -> KeyName:
    """Whose key `secret` is, if it may administer.

    Raises:
        RequestError: it is unknown or has expired (INVALID_KEY), or may only send requests (PERMISSION_DENIED).
    """
    prefix = prefix_of(secret)
    row = None if prefix is None else await session.scalar(select(KeyRow).where(KeyRow.prefix == prefix))
    if row is None or not is_secret(secret, row.secret_sha256):
        raise RequestError(_INVALID, Reason.INVALID_KEY)
    if row.expire_ms is not None and row.expire_ms <= now_ms:
        raise RequestError(_INVALID, Reason.INVALID_KEY)
    if row.role != admin_pb2.KEY_ROLE_ADMIN:
        raise RequestError("this key may send requests but not administer", Reason.PERMISSION_DENIED)
    return KeyName(row.organization, row.tenant, row.project, row.id)


def key_of(row: KeyRow) -> admin_pb2.Key:
    """The message of a row, without the hash."""
    key = admin_pb2.Key(
        name=str(KeyName(row.organization, row.tenant, row.project, row.id)),
        role=KeyRole.ValueType(row.role),
        create_time=timestamp_of_ms(row.create_ms),
        prefix=row.prefix,
    )
    if row.expire_ms is not None:
        key.expire_time.CopyFrom(timestamp_of_ms(row.expire_ms))
    return key
