"""The states of a replica, the edges between them, and the record that walks them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from enginehouse.contract import InternalError
from enginehouse.engines.clock import Clock
from enginehouse.engines.descriptor import EngineSpec
from enginehouse.engines.failure import Ending
from enginehouse.v1 import node_pb2

State: TypeAlias = node_pb2.ReplicaState.ValueType

PENDING = node_pb2.REPLICA_STATE_PENDING
STARTING = node_pb2.REPLICA_STATE_STARTING
LOADING = node_pb2.REPLICA_STATE_LOADING
READY = node_pb2.REPLICA_STATE_READY
DEGRADED = node_pb2.REPLICA_STATE_DEGRADED
DRAINING = node_pb2.REPLICA_STATE_DRAINING
STOPPED = node_pb2.REPLICA_STATE_STOPPED
FAILED = node_pb2.REPLICA_STATE_FAILED
ASLEEP = node_pb2.REPLICA_STATE_ASLEEP

# pending -> starting -> loading -> ready <-> degraded -> draining -> stopped; failed from anywhere (design, section 8).
# An engine that ends goes back to pending and waits there until it is started again. Draining may begin anywhere, since
# an unload does not wait for a start. A failed replica has no engine left, so it is stopped without draining. One that
# sleeps is out of rotation, and comes back as one that has started: by a token.
EDGES: Mapping[State, frozenset[State]] = {
    PENDING: frozenset({STARTING, DRAINING, FAILED}),
    STARTING: frozenset({LOADING, PENDING, DRAINING, FAILED}),
    LOADING: frozenset({READY, PENDING, DRAINING, FAILED}),
    READY: frozenset({DEGRADED, ASLEEP, PENDING, DRAINING, FAILED}),
    DEGRADED: frozenset({READY, ASLEEP, PENDING, DRAINING, FAILED}),
    ASLEEP: frozenset({LOADING, PENDING, DRAINING, FAILED}),
    DRAINING: frozenset({STOPPED, FAILED}),
    STOPPED: frozenset(),
    FAILED: frozenset({STOPPED}),
}
SERVING: frozenset[State] = frozenset({READY, DEGRADED})


def state_name(state: State) -> str:
    """The state as people write it, for example "ready"."""
    return node_pb2.ReplicaState.Name(state).removeprefix("REPLICA_STATE_").lower()


@dataclass(frozen=True, slots=True)
class Transition:
    """One edge that was walked, with what an event about it needs.

    Args:
        from_state: where the replica was.
        to_state: where it is now.
        reason: why, for people.
        ending: how the engine ended, if it did.
        log_reference: the file, in the node's log folder, that the engine writes to.
    """

    from_state: State
    to_state: State
    reason: str
    ending: Ending | None
    log_reference: str


OnChange = Callable[[node_pb2.Replica, Transition], None]
"""Takes the replica after an edge, and the edge. It must neither block nor raise."""


class ReplicaRecord:
    """What is known of one replica. Every change of state goes through `move`, and is told once."""

    def __init__(
        self, spec: EngineSpec, capabilities: node_pb2.Capabilities, clock: Clock, on_change: OnChange
    ) -> None:
        self.spec = spec
        self.address = ""
        self.restarts = 0
        self._declared = capabilities
        self._measured = node_pb2.Capabilities()
        self._measured.CopyFrom(capabilities)
        self._load = node_pb2.ReplicaLoad()
        self._clock = clock
        self._on_change = on_change
        self._state: State = PENDING
        self._reason = ""
        self._since: datetime = clock.now()

    @property
    def state(self) -> State:
        """Where the replica is."""
        return self._state

    @property
    def reason(self) -> str:
        """Why it is there."""
        return self._reason

    @property
    def log_reference(self) -> str:
        """The engine's output file, in the node's log folder."""
        return f"{self.spec.replica_id}.log"

    def move(self, to_state: State, reason: str, ending: Ending | None = None) -> None:
        """Walks one edge and tells `on_change`.

        Raises:
            InternalError: there is no such edge.
        """
        if to_state not in EDGES[self._state]:
            raise InternalError(
                f"replica {self.spec.replica_id} cannot go from {state_name(self._state)} to {state_name(to_state)}"
            )
        transition = Transition(self._state, to_state, reason, ending, self.log_reference)
        if to_state == PENDING:
            self.restarts += 1
        if to_state not in SERVING and to_state != DRAINING:
            self._load = node_pb2.ReplicaLoad()
        if to_state in (PENDING, STOPPED, FAILED):
            self.address = ""
            self._measured.CopyFrom(self._declared)
        self._state, self._reason, self._since = to_state, reason, self._clock.now()
        self._on_change(self.snapshot(), transition)

    def explain(self, reason: str) -> None:
        """Says more about the present state. No edge, so no event."""
        self._reason = reason

    def measure(self, *, template_tokens: int, message_tokens: int) -> None:
        """Takes what readiness taught about the chat template, in tokens."""
        self._measured.template_tokens = template_tokens
        self._measured.message_tokens = message_tokens

    def observe(self, load: node_pb2.ReplicaLoad) -> None:
        """Takes the newest load."""
        self._load.CopyFrom(load)

    def snapshot(self) -> node_pb2.Replica:
        """The replica as it is now; the caller owns the copy."""
        replica = node_pb2.Replica(
            id=self.spec.replica_id,
            deployment=self.spec.deployment,
            revision=self.spec.revision,
            state=self._state,
            reason="" if self._state == READY else self._reason,
            engine=self.spec.engine,
            address=self.address,
            served_model=self.spec.served_model,
            capabilities=self._measured,
            load=self._load,
            restarts=self.restarts,
        )
        replica.state_since.FromDatetime(self._since)
        return replica
