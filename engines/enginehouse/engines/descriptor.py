"""What Enginehouse knows about one kind of engine: its command line, its abilities and its habits, as data."""

import re
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from enginehouse.contract import Reason, RequestError
from enginehouse.engines.inventory import Accelerator
from enginehouse.engines.metrics import MetricsMapping
from enginehouse.engines.models.source import with_details
from enginehouse.engines.options import EngineOption, check_api, check_options, check_options_of_api
from enginehouse.engines.sleep import SLEEPING_ENGINES, SleepMode
from enginehouse.v1 import admin_pb2, common_pb2, node_pb2

_REPLICA_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One replica that is to run.

    Args:
        replica_id: names the log file too, so it holds letters, digits, "-" and "_" alone.
        deployment: name of the deployment that it belongs to.
        revision: the deployment's revision, the fencing token of commands.
        engine: kind of engine, for example "llama-cpp".
        settings: as declared; what is 0 or empty takes the kind's default.
        served_model: what the engine is told that the model is called.

    Raises:
        RequestError: the replica id or the served model cannot be used.
    """

    replica_id: str
    deployment: str
    revision: int
    engine: str
    settings: admin_pb2.EngineSettings
    served_model: str

    def __post_init__(self) -> None:
        """Refuses what could leave the log folder or be read as an option."""
        if not _REPLICA_ID.fullmatch(self.replica_id):
            raise RequestError(f"replica id {self.replica_id!r}: use letters, digits, '-' and '_', 200 at most")
        if not self.served_model or self.served_model.startswith("-"):
            raise RequestError(f"served model {self.served_model!r} of {self.deployment}: give it a name")


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the host gives to one launch.

    Args:
        host, port: where to listen.
        model: a path, or what the engine takes for one.
        ports: as many more as the kind asks for, which no other engine of this host uses.
        accelerators: those that are the replica's own, or its shares of them. None: the host has none.
        folder: for files of the replica's own. It exists, and the engine may read it.
    """

    host: str
    port: int
    model: str
    ports: tuple[int, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    folder: Path = Path()


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start the engine.

    Args:
        command: program and arguments.
        environment: what to add to the host's.
        files: what to write before, by path below the assignment's folder.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What limits one replica. `context_tokens_max` is prompt plus output of one request."""

    context_tokens_max: int
    output_tokens_max: int
    parallel: int
    threads: int


@dataclass(frozen=True, slots=True)
class DrainSignal:
    """The signal on which the engine ends, and the seconds until SIGKILL to its group."""

    number: signal.Signals = signal.SIGTERM
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class StartTimeouts:
    """Deadlines of the start, by phase.

    Args:
        starting_s: without progress, until the port is open. What the engine writes, and memory that it fills, are
            progress: an engine that loads has not failed.
        loading_s: without progress, until the first token.
        attempt_s: of one try at it.
        phase_s_max: of either phase, with or without progress.
    """

    starting_s: float = 60.0
    loading_s: float = 300.0
    attempt_s: float = 30.0
    phase_s_max: float = 3600.0


@dataclass(frozen=True, slots=True)
class Quirks:
    """Where a kind of engine departs from the OpenAI API in ways that routing must know.

    Args:
        usage_covers_choices: usage counts every choice of `n` and every prompt of a list, not only the first.
        failed_streams_show: a stream that dies ends in an error frame or a broken transport, never in a clean end.
        output_limit_members: body members that set the output limit, the one that wins first.
        request_model: the model that requests have to name, whatever it is. Empty: the name that it was given.
        notes: what else an operator should know, one sentence each.
    """

    usage_covers_choices: bool = True
    failed_streams_show: bool = True
    output_limit_members: tuple[str, ...] = ("max_completion_tokens", "max_tokens")
    request_model: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiTraits:
    """What is different where an engine is asked in an API of its own instead of OpenAI's.

    Args:
        operations: what it can be asked.
        features: what requests may need of it.
        metrics: where it says what it is doing. None: it does not.
        without: options of the kind that mean nothing then.
    """

    operations: tuple[common_pb2.Operation.ValueType, ...]
    features: tuple[common_pb2.Feature.ValueType, ...]
    metrics: MetricsMapping | None = None
    without: frozenset[EngineOption] = frozenset()


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """Everything about a kind of engine that no setting changes.

    Args:
        operations: what it can be asked.
        features: what requests may need of it.
        dialects: client dialects that it speaks itself.
        defaults: bounds for settings that are 0.
        stream_usage_members: JSON members, without braces, that make usage known even if a stream is cut.
        metrics: where it says what it is doing. None: it does not.
        drain: how it is ended.
        start: how long it may take to start.
        quirks: where it departs from the usual.
        options: settings that it has and others have not.
        ports: how many more than the one that it serves at.
        accelerator_share: of the memory of each accelerator that it is given, unless `memory_fraction` says. 0: it is
            given none.
        apis: of its own, beside OpenAI's, by the value of `EngineSettings.api` that chooses them.
    """

    operations: tuple[common_pb2.Operation.ValueType, ...]
    features: tuple[common_pb2.Feature.ValueType, ...]
    dialects: tuple[common_pb2.Dialect.ValueType, ...]
    defaults: Bounds
    stream_usage_members: str = ""
    metrics: MetricsMapping | None = None
    drain: DrainSignal = field(default_factory=DrainSignal)
    start: StartTimeouts = field(default_factory=StartTimeouts)
    quirks: Quirks = field(default_factory=Quirks)
    options: frozenset[EngineOption] = frozenset()
    ports: int = 0
    accelerator_share: float = 0.0
    apis: Mapping[admin_pb2.EngineApi.ValueType, ApiTraits] = field(default_factory=dict)


class EngineDescriptor(ABC):
    """One kind of engine. A subclass gives `kind`, `traits` and `command`, and little else."""

    kind: ClassVar[str]
    traits: ClassVar[EngineTraits]

    @abstractmethod
    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """How to start the engine for `spec` at `assignment`.

        Raises:
            RequestError: the settings do not describe an engine of this kind.
        """

    def model_source(self, spec: EngineSpec) -> str | None:
        """The model that has to be on this host before the launch, as `ModelStore` takes it. None: none has to."""
        return None

    def located_source(self, spec: EngineSpec) -> str:
        """The model with its revision and its checksum, as `ModelStore` takes it.

        Raises:
            RequestError: there is no model source.
        """
        settings = spec.settings
        if not settings.model_source:
            raise self.refuse_model(spec, "give a path on the node, or the id of a model on the hub")
        return with_details(settings.model_source, settings.model_revision, settings.model_sha256)

    def settled(self, spec: EngineSpec) -> EngineSpec:
        """The spec with the name by which requests have to call the model."""
        name = self.traits.quirks.request_model
        return replace(spec, served_model=name) if name else spec

    def accelerators(self, spec: EngineSpec) -> int:
        """How many accelerators the replica wants, where there are any."""
        if not self.traits.accelerator_share or spec.settings.external_url:
            return 0
        return (spec.settings.tensor_parallel or 1) * (spec.settings.pipeline_parallel or 1)

    def accelerator_share(self, spec: EngineSpec) -> float:
        """The share of each accelerator's memory that the replica takes, above 0 and up to 1."""
        if EngineOption.MEMORY_FRACTION in self.traits.options and spec.settings.memory_fraction:
            return spec.settings.memory_fraction
        return self.traits.accelerator_share

    def asked_by(self, spec: EngineSpec) -> EngineTraits | ApiTraits:
        """The traits of the API that the replica is asked in."""
        return self.traits.apis.get(spec.settings.api) or self.traits

    def operations(self, spec: EngineSpec) -> tuple[common_pb2.Operation.ValueType, ...]:
        """What this replica can be asked."""
        return self.asked_by(spec).operations

    def metrics(self, spec: EngineSpec) -> MetricsMapping | None:
        """Where this replica says what it is doing. None: it does not."""
        return self.asked_by(spec).metrics

    def sleep_mode(self, spec: EngineSpec) -> SleepMode:
        """How this replica is put to sleep and woken.

        Raises:
            RequestError: it cannot sleep.
        """
        raise RequestError(
            f"{spec.deployment}: engine {self.kind} cannot sleep; engines that can are: {', '.join(SLEEPING_ENGINES)}",
            Reason.METHOD_NOT_ALLOWED,
        )

    def features(self, spec: EngineSpec) -> tuple[common_pb2.Feature.ValueType, ...]:
        """What requests may need of this replica. More than the kind's where settings add to it."""
        features = self.asked_by(spec).features
        if spec.settings.lora_adapters and common_pb2.FEATURE_LORA not in features:
            features = (*features, common_pb2.FEATURE_LORA)
        return features

    def offered_features(self, spec: EngineSpec) -> tuple[common_pb2.Feature.ValueType, ...]:
        """The replica's, and those that its settings declare, since only the model's owner knows of them."""
        return tuple(dict.fromkeys((*self.features(spec), *spec.settings.features)))

    def check(self, spec: EngineSpec) -> None:
        """Refuses settings that can never run, before anything is started.

        Raises:
            RequestError: naming the setting, its value and what is expected.
        """
        settings = spec.settings
        for name in ("context_tokens_max", "output_tokens_max", "parallel", "threads"):
            value: int = getattr(settings, name)
            if value < 0:
                raise RequestError(
                    f"{spec.deployment}: {name} is {value}; give a positive number, or 0 for the default"
                )
        check_options(settings, deployment=spec.deployment, engine=self.kind, known=self.traits.options)
        check_api(settings, deployment=spec.deployment, engine=self.kind, known=self.traits.apis)
        if api := self.traits.apis.get(settings.api):
            check_options_of_api(settings, deployment=spec.deployment, without=api.without)
        bounds = self.bounds(spec)
        if bounds.output_tokens_max > bounds.context_tokens_max:
            raise RequestError(
                f"{spec.deployment}: output_tokens_max {bounds.output_tokens_max} is above context_tokens_max "
                f"{bounds.context_tokens_max}; a request's output is part of its context"
            )

    def bounds(self, spec: EngineSpec) -> Bounds:
        """The replica's limits: its settings, and the kind's defaults for those that are 0."""
        settings, defaults = spec.settings, self.traits.defaults
        context_tokens_max = settings.context_tokens_max or defaults.context_tokens_max
        return Bounds(
            context_tokens_max=context_tokens_max,
            output_tokens_max=settings.output_tokens_max or min(defaults.output_tokens_max, context_tokens_max),
            parallel=settings.parallel or defaults.parallel,
            threads=settings.threads or defaults.threads,
        )

    def capabilities(self, spec: EngineSpec) -> node_pb2.Capabilities:
        """What the replica is able to do, before anything was measured.

        A dialect is direct only where the engine is asked in OpenAI's API, a request's usage is sure and a failed
        stream shows (design, section 5); several choices are offered only where usage counts them all, since the client
        is billed by it.
        """
        traits, bounds = self.traits, self.bounds(spec)
        features = [
            feature
            for feature in self.offered_features(spec)
            if feature != common_pb2.FEATURE_MULTIPLE_CHOICES or traits.quirks.usage_covers_choices
        ]
        speaks_openai = self.asked_by(spec) is traits
        usage_is_sure = bool(traits.stream_usage_members) or common_pb2.FEATURE_STREAM not in features
        is_direct = speaks_openai and usage_is_sure and traits.quirks.failed_streams_show
        return node_pb2.Capabilities(
            operations=self.operations(spec),
            features=features,
            direct_dialects=traits.dialects if is_direct else (),
            context_tokens_max=bounds.context_tokens_max,
            output_tokens_max=bounds.output_tokens_max,
            stream_usage_members=traits.stream_usage_members if speaks_openai else "",
        )

    def refuse_model(self, spec: EngineSpec, expected: str) -> RequestError:
        """The error for a model source that this kind cannot run."""
        return RequestError(
            f"{spec.deployment}: engine {self.kind} cannot run model_source {spec.settings.model_source!r}; {expected}",
            Reason.MALFORMED_REQUEST,
        )
