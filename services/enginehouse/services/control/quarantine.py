"""Quarantine: a deployment that used more than was held for it gets no more requests until an operator has looked."""

from collections.abc import Iterable

import structlog
from sqlalchemy import select

from enginehouse.services.control.database import Transaction
from enginehouse.services.control.edit import LEDGER, Edit
from enginehouse.services.control.names import DeploymentName
from enginehouse.services.control.schema import DeploymentRow

_log = structlog.get_logger(__name__)

OVERRUN = "it used more than was held for it, so its bounds cannot be trusted; an update of the deployment lifts this"


async def quarantine(transaction: Transaction, deployments: Iterable[str]) -> None:
    """Takes deployments out of service and tells it once. Those that are gone, or are out already, stay as they are.

    Args:
        transaction: what it belongs to.
        deployments: ids.
    """
    ids = set(deployments)
    if not ids:
        return
    rows = await transaction.session.scalars(
        select(DeploymentRow)
        .where(DeploymentRow.id.in_(ids), DeploymentRow.quarantine == "")
        .order_by(DeploymentRow.id)
        .with_for_update()
    )
    for row in rows:
        row.quarantine = OVERRUN
        _log.error("deployment quarantined", deployment=row.id, reason=OVERRUN)
        Edit(transaction, LEDGER, 0).changed(str(DeploymentName(row.id)), "quarantined")
