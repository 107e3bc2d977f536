"""One administrator's change, and what it leaves behind: an event, an etag, and word to the publisher."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from google.protobuf.message import Message
from sqlalchemy.ext.asyncio import AsyncSession

from enginehouse.contract import Reason, RequestError
from enginehouse.router import Jurisdictions
from enginehouse.services.control.database import Transaction
from enginehouse.services.policies import InvalidPolicyError
from enginehouse.v1 import events_pb2

CONFIGURATION = "configuration"
"""The actor behind declared resources."""

LEDGER = "ledger"
"""The actor behind a quarantine."""

OPERATOR = "operator"
"""The actor behind calls through the Unix socket."""

_ETAG_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of resources inside one transaction.

    Attributes:
        transaction: what it belongs to.
        actor: the name of the key, or `OPERATOR`, or `CONFIGURATION`.
        wall_ms: when, in Unix milliseconds.
        jurisdictions: the tree that residency rules are read with.
    """

    transaction: Transaction
    actor: str
    wall_ms: int
    jurisdictions: Jurisdictions = field(default_factory=Jurisdictions)

    @property
    def session(self) -> AsyncSession:
        """The transaction's session."""
        return self.transaction.session

    def changed(self, name: str, what: str, etag: str = "") -> None:
        """Notes that a resource was "created", "updated" or "deleted"."""
        self.transaction.desired_changed = True
        payload = events_pb2.ResourceChanged(name=name, actor=self.actor, etag=etag)
        # a subject's parts hold no slashes by custom, and ids hold no underscores
        self.transaction.announce("resource", name.replace("/", "_"), what, payload)


def etag_of(message: Message) -> str:
    """The etag of a resource: a hash of what `message` holds."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:_ETAG_LENGTH]


def check_etag(name: str, given: str, current: str) -> None:
    """Compares the etag of an update with the resource's.

    Raises:
        RequestError: one was given and the resource has another by now.
    """
    if given and given != current:
        raise RequestError(f"{name} has changed: its etag is {current!r}, not {given[:80]!r}", Reason.ETAG_MISMATCH)


@contextmanager
def about(name: object) -> Iterator[None]:
    """Has a caller's error inside say which of several resources is wrong."""
    try:
        yield
    except InvalidPolicyError as error:
        raise InvalidPolicyError(error.name, [f"{name}: {line}" for line in error.lines]) from error
    except RequestError as error:
        raise RequestError(f"{name}: {error.message}", error.reason, metadata=error.metadata) from error


def not_found(name: object) -> RequestError:
    """The error for a resource that is not there."""
    return RequestError(f"there is no {name}", Reason.RESOURCE_NOT_FOUND)


def exists(name: object) -> RequestError:
    """The error for a resource that is there already."""
    return RequestError(f"{name} exists already; update it, or choose another id", Reason.RESOURCE_EXISTS)
