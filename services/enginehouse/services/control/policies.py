"""The organization's rules: one set, replaced as a whole, with a revision that only grows."""

from google.protobuf import json_format
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from enginehouse.contract import EnginehouseError, RequestError
from enginehouse.router import Jurisdictions
from enginehouse.services.control.database import Database, Event
from enginehouse.services.control.durations import timestamp_of_ms
from enginehouse.services.control.edit import Edit, check_etag, etag_of, not_found
from enginehouse.services.control.names import PolicySetName, TenantName
from enginehouse.services.control.rows import insert_missing
from enginehouse.services.control.schema import DeploymentRow, PolicySetRow, TenantRow
from enginehouse.services.policies import (
    Catalog,
    InvalidPolicyError,
    canonical_policy,
    canonical_set,
    policy_problems,
    policy_set_problems,
)
from enginehouse.v1 import admin_pb2, events_pb2

POLICY_SET = PolicySetName("default")
BYTES_MAX = 512 * 1024
"""Of a set. Twice as much would not fit into a message of the store that it is published in."""
_LINE_CHARACTERS_MAX = 500


async def get_policy_set(session: AsyncSession, name: PolicySetName) -> admin_pb2.PolicySet:
    """The set of that name. One that nobody has written has no rules, and revision 0."""
    _check_name(name)
    row = await session.get(PolicySetRow, name.policy_set)
    return policy_set_of(row or _new_row())


async def update_policy_set(edit: Edit, policy_set: admin_pb2.PolicySet) -> admin_pb2.PolicySet:
    """Replaces the rules and data classes. The revision grows only when they are others.

    Raises:
        InvalidPolicyError: something in it is wrong; the set in force stays.
        RequestError: it has changed since its etag was read, or is too large.
    """
    _check_name(PolicySetName.parse(policy_set.name))
    spec = await _checked(edit.session, policy_set, edit.jurisdictions)
    row = await _locked(edit.session)
    check_etag(policy_set.name, policy_set.etag, policy_set_of(row).etag)
    return _replace(edit, row, spec)


async def check_policy_set(
    session: AsyncSession, policy_set: admin_pb2.PolicySet, jurisdictions: Jurisdictions
) -> admin_pb2.PolicySet:
    """What `update_policy_set` would answer, short of the time. Raises what it would raise."""
    current = await get_policy_set(session, PolicySetName.parse(policy_set.name))
    spec = await _checked(session, policy_set, jurisdictions)
    check_etag(policy_set.name, policy_set.etag, current.etag)
    etag = etag_of(spec)
    if etag == current.etag:
        return current
    return _message(spec, current.revision + 1)


async def declare_policy_set(edit: Edit, policy_set: admin_pb2.PolicySet | None) -> None:
    """Makes the set what the configuration says. None: it says nothing, and what it said before is withdrawn."""
    if policy_set is None:
        row = await edit.session.get(PolicySetRow, POLICY_SET.policy_set, with_for_update=True)
        if row is not None and row.declared:
            _replace(edit, row, admin_pb2.PolicySet())
            row.declared = False
        await check_rules_still_hold(edit)
        return
    spec = await _checked(edit.session, policy_set, edit.jurisdictions)
    row = await _locked(edit.session)
    _replace(edit, row, spec)
    row.declared = True


async def check_rules_still_hold(edit: Edit) -> None:
    """Checks, after a change of tenants or deployments, that the rules in force name only what is still there.

    A rule about a model that nobody offers by that name any more would be a rule that is not there.

    Raises:
        RequestError: they do not.
    """
    row = await edit.session.get(PolicySetRow, POLICY_SET.policy_set)
    if row is None or not row.revision:
        return
    catalog = await _catalog(edit.session, edit.jurisdictions)
    problems = list(policy_set_problems(admin_pb2.PolicySet.FromString(row.spec), catalog))
    if problems:
        told = InvalidPolicyError.of(str(POLICY_SET), problems).message
        raise RequestError(f"{POLICY_SET} would no longer be right; change the rules first:\n{told}")


async def checked_tenant_policy(edit: Edit, name: str, policy: admin_pb2.Policy) -> admin_pb2.Policy:
    """A tenant's own policy in its one spelling.

    Raises:
        InvalidPolicyError: something in it is wrong.
    """
    if policy == admin_pb2.Policy():
        return policy
    catalog = await _catalog(edit.session, edit.jurisdictions)
    problems = list(policy_problems(policy, catalog, ("policy",)))
    if problems:
        raise InvalidPolicyError.of(name, problems)
    return canonical_policy(policy, edit.jurisdictions)


def policy_set_of(row: PolicySetRow) -> admin_pb2.PolicySet:
    """The message of a row."""
    message = _message(admin_pb2.PolicySet.FromString(row.spec), row.revision)
    if row.update_ms:
        message.update_time.CopyFrom(timestamp_of_ms(row.update_ms))
    return message


async def published_policy_set(session: AsyncSession) -> admin_pb2.PolicySet:
    """The set in force, for the desired state. It is there even when it holds no rule."""
    return await get_policy_set(session, POLICY_SET)


async def announce_refusal(database: Database, actor: str, error: InvalidPolicyError) -> None:
    """Has everybody hear that a policy was refused, and which set stays in force."""
    payload = events_pb2.PolicyChanged(name=error.name, actor=actor, problems=error.lines)
    try:
        async with database.read() as session:
            current = await get_policy_set(session, POLICY_SET)
    except EnginehouseError:
        current = admin_pb2.PolicySet()  # the refusal itself matters more than what it is told beside it
    payload.revision, payload.hash, payload.hash_before = current.revision, current.etag, current.etag
    subject = error.name.removeprefix("policies/").replace("/", "_")
    database.announce(Event("policy", subject, "refused", payload))


def refused_file(name: PolicySetName, lines: list[str]) -> InvalidPolicyError:
    """What somebody's file was refused for, as they report it.

    Raises:
        RequestError: nothing is reported, or it is about no set that there is.
    """
    _check_name(name)
    if not lines:
        raise RequestError("problems is empty; say what was wrong with the file")
    return InvalidPolicyError(str(name), [line[:_LINE_CHARACTERS_MAX] for line in lines])


async def _checked(
    session: AsyncSession, policy_set: admin_pb2.PolicySet, jurisdictions: Jurisdictions
) -> admin_pb2.PolicySet:
    if policy_set.ByteSize() > BYTES_MAX:
        raise InvalidPolicyError(
            str(POLICY_SET), [f"rules: the set has {policy_set.ByteSize()} bytes; at most {BYTES_MAX} are taken"]
        )
    catalog = await _catalog(session, jurisdictions)
    problems = list(policy_set_problems(policy_set, catalog))
    if problems:
        raise InvalidPolicyError.of(str(POLICY_SET), problems)
    return canonical_set(policy_set, jurisdictions)


async def _catalog(session: AsyncSession, jurisdictions: Jurisdictions) -> Catalog:
    deployments = [
        (deployment_id, admin_pb2.Deployment.FromString(spec))
        for deployment_id, spec in await session.execute(select(DeploymentRow.id, DeploymentRow.spec))
    ]
    tenants = await session.execute(select(TenantRow.organization, TenantRow.id))
    return Catalog(
        jurisdictions,
        {deployment_id: frozenset((one.model, *one.aliases)) for deployment_id, one in deployments},
        frozenset(str(TenantName(organization, tenant)) for organization, tenant in tenants),
    )


def _replace(edit: Edit, row: PolicySetRow, spec: admin_pb2.PolicySet) -> admin_pb2.PolicySet:
    before = policy_set_of(row)
    if before.etag == etag_of(spec):
        return before
    row.spec = spec.SerializeToString(deterministic=True)
    row.spec_json = json_format.MessageToJson(spec, indent=None, sort_keys=True)
    row.revision += 1
    row.update_ms = edit.wall_ms
    after = policy_set_of(row)
    edit.changed(after.name, "updated", after.etag)
    payload = events_pb2.PolicyChanged(
        name=after.name, actor=edit.actor, revision=after.revision, hash=after.etag, hash_before=before.etag
    )
    edit.transaction.announce("policy", row.id, "applied", payload)
    return after


def _message(spec: admin_pb2.PolicySet, revision: int) -> admin_pb2.PolicySet:
    message = admin_pb2.PolicySet(etag=etag_of(spec), name=str(POLICY_SET), revision=revision)
    message.MergeFrom(spec)
    return message


def _new_row() -> PolicySetRow:
    return PolicySetRow(id=POLICY_SET.policy_set, spec=b"", spec_json="{}", revision=0, update_ms=0, declared=False)


async def _locked(session: AsyncSession) -> PolicySetRow:
    await insert_missing(session, _new_row())
    return await session.get_one(PolicySetRow, POLICY_SET.policy_set, with_for_update=True)


def _check_name(name: PolicySetName) -> None:
    if name != POLICY_SET:
        raise not_found(name)
