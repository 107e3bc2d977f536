"""Deployments."""

from collections.abc import Collection, Sequence

from google.protobuf import json_format
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from enginehouse.services.control.edit import Edit, about, check_etag, etag_of, exists, not_found
from enginehouse.services.control.names import DeploymentName
from enginehouse.services.control.schema import DeploymentRow, RevisionRow
from enginehouse.services.control.validation import check_deployment
from enginehouse.v1 import admin_pb2


async def create_deployment(edit: Edit, name: DeploymentName, deployment: admin_pb2.Deployment) -> admin_pb2.Deployment:
    """Creates a deployment. Its revision goes on from that of an earlier one of the same id, which nodes remember."""
    spec = _spec(name, deployment)
    if await edit.session.get(DeploymentRow, name.deployment) is not None:
        raise exists(name)
    row = DeploymentRow(id=name.deployment, spec=b"", spec_json="", revision=0, declared=False)
    edit.session.add(row)
    return await _write(edit, row, spec, "created")


async def get_deployment(session: AsyncSession, name: DeploymentName) -> admin_pb2.Deployment:
    """The deployment of that name."""
    return deployment_of(await _known(session, name))


async def list_deployments(session: AsyncSession) -> list[admin_pb2.Deployment]:
    """All deployments by name."""
    return [deployment_of(row) for row in await session.scalars(select(DeploymentRow).order_by(DeploymentRow.id))]


async def update_deployment(edit: Edit, deployment: admin_pb2.Deployment) -> admin_pb2.Deployment:
    """Replaces the specification, and lifts a quarantine. The revision grows only when it is another one."""
    name = DeploymentName.parse(deployment.name)
    row = await _locked(edit.session, name)
    check_etag(deployment.name, deployment.etag, deployment_of(row).etag)
    was_quarantined, row.quarantine = row.quarantine, ""
    updated = await _replace(edit, row, _spec(name, deployment))
    if was_quarantined:
        edit.changed(str(name), "updated", updated.etag)
    return updated


async def delete_deployment(edit: Edit, name: DeploymentName) -> None:
    """Deletes a deployment. The number of its last revision is kept."""
    row = await _locked(edit.session, name)
    await edit.session.delete(row)
    edit.changed(str(name), "deleted")


async def declare_deployments(edit: Edit, deployments: Sequence[admin_pb2.Deployment]) -> None:
    """Makes the declared deployments what the configuration says."""
    for deployment in deployments:
        with about(deployment.name):
            await _declare(edit, DeploymentName.parse(deployment.name), deployment)


async def _declare(edit: Edit, name: DeploymentName, deployment: admin_pb2.Deployment) -> None:
    row = await edit.session.get(DeploymentRow, name.deployment)
    if row is None:
        await create_deployment(edit, name, deployment)
        row = await _known(edit.session, name)
    else:
        await _replace(edit, row, _spec(name, deployment))
    row.declared = True


async def drop_deployments(edit: Edit, kept: Collection[str]) -> None:
    """Deletes the deployments that were declared and are not among `kept`, which are full names."""
    for row in await edit.session.scalars(select(DeploymentRow).where(DeploymentRow.declared)):
        name = DeploymentName(row.id)
        if str(name) not in kept:
            await delete_deployment(edit, name)


def deployment_of(row: DeploymentRow) -> admin_pb2.Deployment:
    """The message of a row."""
    deployment = admin_pb2.Deployment.FromString(row.spec)
    deployment.revision = row.revision
    deployment.etag = etag_of(deployment)
    deployment.quarantine = row.quarantine
    return deployment


def _spec(name: DeploymentName, deployment: admin_pb2.Deployment) -> admin_pb2.Deployment:
    check_deployment(deployment)
    spec = admin_pb2.Deployment()
    spec.CopyFrom(deployment)
    spec.name = str(name)
    spec.ClearField("revision")
    spec.ClearField("etag")
    spec.ClearField("quarantine")
    return spec


async def _replace(edit: Edit, row: DeploymentRow, spec: admin_pb2.Deployment) -> admin_pb2.Deployment:
    if row.spec == spec.SerializeToString(deterministic=True):
        return deployment_of(row)
    return await _write(edit, row, spec, "updated")


async def _write(edit: Edit, row: DeploymentRow, spec: admin_pb2.Deployment, what: str) -> admin_pb2.Deployment:
    last = await edit.session.get(RevisionRow, row.id, with_for_update=True)
    if last is None:
        last = RevisionRow(deployment=row.id, revision=0)
        edit.session.add(last)
    last.revision += 1
    row.revision = last.revision
    row.spec = spec.SerializeToString(deterministic=True)
    row.spec_json = json_format.MessageToJson(spec, indent=None, sort_keys=True)
    deployment = deployment_of(row)
    edit.changed(deployment.name, what, deployment.etag)
    return deployment


async def _known(session: AsyncSession, name: DeploymentName) -> DeploymentRow:
    row = await session.get(DeploymentRow, name.deployment)
    if row is None:
        raise not_found(name)
    return row


async def _locked(session: AsyncSession, name: DeploymentName) -> DeploymentRow:
    row = await session.get(DeploymentRow, name.deployment, with_for_update=True)
    if row is None:
        raise not_found(name)
    return row
