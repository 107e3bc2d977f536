"""What an operator may set: one typed model of `enginehouse.yaml`."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from enginehouse.router import Jurisdictions
from enginehouse.router.jurisdiction import GROUPS
from enginehouse.services.settings.policy import ClassName, Residency, Rule, TaskName, Tenant
from enginehouse.services.settings.sections import (
    Chip,
    Lane,
    Name,
    Named,
    Number,
    Quality,
    Score,
    Section,
    Usd,
    unique_names,
)

Port = Annotated[int, Field(ge=0, le=65535)]
_USD_MAX = 10**9


class Door(Section):
    """Envoy: the one port that clients use."""

    port: Port = 8080
    admin_port: Port = 0
    body_bytes_max: int = Field(default=1024 * 1024, ge=1024, le=1024 * 1024 * 1024)
    longest_request_s: int = Field(default=600, ge=1, le=86400)
    check_timeout_ms: int = Field(default=2000, ge=100, le=60000)
    worker_threads: int = Field(default=1, ge=1, le=256)
    drain_grace_s: float = Field(default=10, ge=0, le=3600)
    envoy_binary: Path | None = None


class Nats(Section):
    """The event plane."""

    port: Port = 4222
    server_binary: Path | None = None
    sync_always: bool = False
    events_age_s: int = Field(default=86400, ge=60)
    events_bytes_max: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)


class Control(Section):
    """The ledger and the admin API."""

    port: Port = 0
    database_url: str = ""
    allowance_term_s: int = Field(default=900, ge=10, le=86400)


class Router(Named):
    """One router process."""

    http_port: Port = 0
    grpc_port: Port = 0


class Node(Named):
    """One node process, and where it is."""

    place: str
    chip: Chip = "cpu"
    port: Port = 0
    drain_grace_s: float = Field(default=10, ge=0, le=3600)


class Telemetry(Section):
    """Logs, and OpenTelemetry, which is off until an endpoint is set."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    otlp_endpoint: str = ""
    collector_binary: Path | None = None


class TokenPrice(Section):
    """USD per million tokens, and USD per request."""

    input: Usd = Decimal(0)
    cached_input: Usd | None = None
    output: Usd = Decimal(0)
    request: Usd = Decimal(0)

    @model_validator(mode="after")
    def _is_not_free(self) -> Self:
        if not (self.input or self.output or self.request):
            raise ValueError("a price of nothing is not a price: set input, output or request")
        return self


class HourlyPrice(Section):
    """USD that a replica costs in an hour, over what it does in a second: as declared, or as its node measures."""

    hour: Annotated[Usd, Field(gt=0)]
    input_tokens_per_second: int | None = Field(default=None, gt=0)
    output_tokens_per_second: int | None = Field(default=None, gt=0)


def _price_kind(value: object) -> str:
    keys = value if isinstance(value, dict) else vars(value) if isinstance(value, Section) else ()
    return "hourly" if any(key in keys for key in HourlyPrice.model_fields) else "tokens"


Price = Annotated[
    Annotated[TokenPrice, Tag("tokens")] | Annotated[HourlyPrice, Tag("hourly")], Discriminator(_price_kind)
]


class Placement(Section):
    """Replicas of a deployment on one node."""

    node: Name
    price: Price
    quality: Quality = "standard"
    quality_scores: dict[TaskName, Score] = Field(default={})
    replicas: int = Field(default=1, ge=1, le=64)
    in_flight_max: int = Field(default=64, ge=1, le=100_000)


class Container(Section):
    """The engine runs in a container of this image."""

    image: str = Field(min_length=1)
    runtime: Literal["", "docker", "podman"] = ""
    arguments: list[str] = Field(default=[])


DeclaredFeature = Literal[
    "tools", "json_schema", "vision", "audio", "logprobs", "reasoning", "seed", "penalties", "presence_penalty"
]
"""What a model may be able to do that its kind of engine does not show."""


class Engine(Section):
    """How the engine is started, and what it is asked in. What an engine does not know it refuses, by name."""

    kind: str
    api: Literal["openai", "native", "grpc"] = "openai"
    model: str = ""
    context_tokens_max: int = Field(default=2048, ge=16)
    output_tokens_max: int = Field(default=512, ge=1)
    parallel: int = Field(default=4, ge=1, le=4096)
    threads: int = Field(default=1, ge=1, le=1024)
    arguments: list[str] = Field(default=[])
    environment: dict[str, str] = Field(default={})
    url: str = ""
    program: str = ""
    served_names: list[str] = Field(default=[])
    tensor_parallel: int = Field(default=1, ge=1, le=1024)
    pipeline_parallel: int = Field(default=1, ge=1, le=1024)
    memory_fraction: float | None = Field(default=None, gt=0, le=1)
    quantization: str = ""
    lora_adapters: dict[str, str] = Field(default={})
    container: Container | None = None
    model_revision: str = ""
    model_sha256: str = ""
    features: list[DeclaredFeature] = Field(default=[])

    @model_validator(mode="after")
    def _output_leaves_room_for_a_prompt(self) -> Self:
        if self.output_tokens_max >= self.context_tokens_max:
            raise ValueError(
                f"output_tokens_max {self.output_tokens_max} must be below context_tokens_max {self.context_tokens_max}"
            )
        return self


class Deployment(Named):
    """A model on an engine, with its settings, prices and labels."""

    model: str = ""
    aliases: list[str] = Field(default=[])
    engine: Engine
    placements: list[Placement] = Field(min_length=1)
    tenants: list[Name] = Field(default=[])
    lane: Lane | None = None

    @property
    def public_model(self) -> str:
        """The name that clients ask for."""
        return self.model or self.name


class Limit(Named):
    """A cap on one unit within one window for one scope. In USD it is a budget.

    Attributes:
        start, end: the period in which it counts, `end` excluded; a time without an offset is in `time_zone`.
    """

    scope: str = Field(pattern=r"^(organization|tenant/[^/]+(/project/[^/]+(/key/[^/]+)?)?|model/.+|deployment/.+)$")
    unit: Literal["usd", "tokens", "requests", "in_flight"]
    window: Literal["minute", "hour", "day", "month", "none"] = "none"
    cap: Annotated[Number, Field(gt=0, le=10**18)]
    time_zone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, time_zone: str) -> str:
        if time_zone not in available_timezones():
            raise ValueError(f"{time_zone!r} is not an IANA time zone")
        return time_zone

    @property
    def starts(self) -> datetime | None:
        """When it begins to count, in UTC. None: it always did."""
        return self._utc(self.start)

    @property
    def ends(self) -> datetime | None:
        """When it counts no more, in UTC. None: never."""
        return self._utc(self.end)

    def _utc(self, moment: datetime | None) -> datetime | None:
        if moment is None:
            return None
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(self.time_zone))
        return zoned.astimezone(UTC)

    @model_validator(mode="after")
    def _counts_are_whole(self) -> Self:
        if self.unit != "usd" and self.cap != self.cap.to_integral_value():
            raise ValueError(f"cap {self.cap} of unit {self.unit} must be a whole number")
        if self.unit == "usd" and self.cap > _USD_MAX:
            raise ValueError(f"cap {self.cap} is more than {_USD_MAX} USD")
        if self.starts and self.ends and self.ends <= self.starts:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self


class OwnJurisdictions(Section):
    """Groups of one's own: of countries, paths below one, cloud regions, and other groups."""

    groups: dict[str, list[str]] = Field(default={})


class Settings(BaseSettings):
    """The whole file. A flag wins over ENGINEHOUSE_* in the environment, that over the file, that over the default."""

    model_config = SettingsConfigDict(
        env_prefix="ENGINEHOUSE_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    place: str
    state: Path = Path(".enginehouse")
    host: str = "127.0.0.1"
    door: Door = Door()
    nats: Nats = Nats()
    control: Control = Control()
    telemetry: Telemetry = Telemetry()
    currency: Literal["USD"] = "USD"
    jurisdictions: OwnJurisdictions = OwnJurisdictions()
    routers: Annotated[list[Router], AfterValidator(unique_names), Field(min_length=1)] = [Router(name="router-0")]
    nodes: Annotated[list[Node], AfterValidator(unique_names)] = []
    deployments: Annotated[list[Deployment], AfterValidator(unique_names)] = []
    tenants: Annotated[list[Tenant], AfterValidator(unique_names)] = Field(default=[])
    limits: Annotated[list[Limit], AfterValidator(unique_names)] = []
    policies: list[Rule] = Field(default=[])
    data_classes: dict[ClassName, Residency] = Field(default={})

    @property
    def nats_url(self) -> str:
        """Where clients of the event plane connect."""
        return f"nats://{self.host}:{self.nats.port}"

    @property
    def jurisdiction_tree(self) -> Jurisdictions:
        """The tree with the user's own groups.

        Raises:
            RequestError: a group is wrong, which `load` has seen to.
        """
        own = {name: frozenset(members) for name, members in self.jurisdictions.groups.items()}
        return Jurisdictions({**GROUPS, **own})
