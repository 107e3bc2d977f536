"""Engine processes: command lines, phases, supervision, drain.

One replica is one `ReplicaSupervisor`; `run` keeps its engine alive, `snapshot` says how it is, `drain` ends it::

    registry = EngineRegistry()
    spec = EngineSpec("echo-1", "echo", 1, "echo", EngineSettings(), served_model="echo")
    replica = ReplicaSupervisor(spec, registry.descriptor(spec.engine), prober, folder, on_change=print)
    running = asyncio.create_task(replica.run())
    await replica.wait_until(READY)
    ...
    await replica.drain(grace_s=30)
    await running

Prober is what speaks the engine's dialect: services inject it from the adapters, which engines know nothing of.

How to add an engine
    Make a folder beside `echo` with the same inner files: `descriptor.py` with a class derived from `EngineDescriptor`
    (kind, traits, command; `check` and `model_source` where there is something to say), `server.py` only if the engine
    has no program of its own, and a door. What the engine does differently from others goes into its traits as data:
    metrics names, drain signal, start timeouts, quirks. Then name the class in `registry.BUILT_IN`. In a package of
    your own, announce it instead::

        [project.entry-points."enginehouse.engines"]
        my-engine = "my_package.descriptor:MyEngine"

    An engine that runs already needs no code: set `external_url` of its deployment, with its kind if we know it, or
    with the kind "external".
"""

from enginehouse.engines.clock import Clock, SystemClock
from enginehouse.engines.config import SupervisionConfig
from enginehouse.engines.descriptor import (
    Assignment,
    Bounds,
    DrainSignal,
    EngineDescriptor,
    EngineSpec,
    EngineTraits,
    Launch,
    Quirks,
    StartTimeouts,
)
from enginehouse.engines.failure import Ending, FailureClass
from enginehouse.engines.health import HealthPolicy
from enginehouse.engines.inventory import Accelerator, AcceleratorPool, Inventory
from enginehouse.engines.launch import EngineHost
from enginehouse.engines.metrics import MetricsMapping
from enginehouse.engines.models import ModelStore
from enginehouse.engines.options import EngineOption
from enginehouse.engines.prober import Prober, Readiness
from enginehouse.engines.registry import EngineRegistry
from enginehouse.engines.restart import RestartPolicy
from enginehouse.engines.state import (
    ASLEEP,
    DEGRADED,
    DRAINING,
    FAILED,
    LOADING,
    PENDING,
    READY,
    SERVING,
    STARTING,
    STOPPED,
    OnChange,
    State,
    Transition,
    state_name,
)
from enginehouse.engines.supervisor import CONTAINERS_FILE, ReplicaSupervisor

__all__ = [
    "ASLEEP",
    "CONTAINERS_FILE",
    "DEGRADED",
    "DRAINING",
    "FAILED",
    "LOADING",
    "PENDING",
    "READY",
    "SERVING",
    "STARTING",
    "STOPPED",
    "Accelerator",
    "AcceleratorPool",
    "Assignment",
    "Bounds",
    "Clock",
    "DrainSignal",
    "Ending",
    "EngineDescriptor",
    "EngineHost",
    "EngineOption",
    "EngineRegistry",
    "EngineSpec",
    "EngineTraits",
    "FailureClass",
    "HealthPolicy",
    "Inventory",
    "Launch",
    "MetricsMapping",
    "ModelStore",
    "OnChange",
    "Prober",
    "Quirks",
    "Readiness",
    "ReplicaSupervisor",
    "RestartPolicy",
    "StartTimeouts",
    "State",
    "SupervisionConfig",
    "SystemClock",
    "Transition",
    "state_name",
]
