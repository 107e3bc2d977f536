"""How replicas are supervised: one frozen object for all of it."""

from dataclasses import dataclass, field

from enginehouse.engines.health import HealthPolicy
from enginehouse.engines.restart import RestartPolicy


@dataclass(frozen=True, slots=True)
class SupervisionConfig:
    """The policies, and the paces of looking.

    Args:
        restart: when an engine that ended is started again.
        health: when an engine counts as alive.
        ready_poll_s: between tries at the first token.
        load_interval_s: between two samples of the load.
        use_interval_s: between two samples of the memory and the accelerators that an engine takes.
        drain_poll_s: between two looks at whether requests still run.
        drain_quiet_s: how long no request may have run before the drain signal is sent. A request that was routed just
            before the replica left rotation is still on its way.
    """

    restart: RestartPolicy = field(default_factory=RestartPolicy)
    health: HealthPolicy = field(default_factory=HealthPolicy)
    ready_poll_s: float = 0.25
    load_interval_s: float = 1.0
    use_interval_s: float = 10.0
    drain_poll_s: float = 0.1
    drain_quiet_s: float = 0.5
