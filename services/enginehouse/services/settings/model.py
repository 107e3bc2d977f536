"""What an operator may set: one typed model of `enginehouse.yaml`."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from enginehouse.router import Jurisdictions
from enginehouse.router.jurisdiction import COUNTRIES, GROUPS

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Chip = Literal["gpu", "tpu", "lpu", "cpu", "apple"]
Quality = Literal["low", "standard", "high"]
Lane = Literal["direct", "adapter"]


def _usd(value: object) -> object:
    # YAML reads 0.1 as a binary float; its shortest decimal form is what the operator wrote.
    return Decimal(str(value)) if isinstance(value, float | int) and not isinstance(value, bool) else value


_NamedT = TypeVar("_NamedT", bound="Named")
Usd = Annotated[Decimal, BeforeValidator(_usd), Field(ge=0, decimal_places=12, le=10**9)]


def _list_of_unique_names(items: "list[_NamedT]") -> "list[_NamedT]":
    names = [item.name for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names must differ; {', '.join(twice)} is given more than once")
    return items


class Section(BaseModel):
    """A part of the file. Unknown keys are errors: a misspelled rule must not be a rule that is not there."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Named(Section):
    """A part that other parts refer to by name."""

    name: Name


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
    """What the machine costs in an hour, over what it does in a second."""

    usd_per_hour: Usd = Field(gt=0)
    input_tokens_per_second: int = Field(gt=0)
    output_tokens_per_second: int = Field(gt=0)


def _price_kind(value: object) -> str:
    keys = value if isinstance(value, dict) else vars(value)
    return "hourly" if any(key in keys for key in HourlyPrice.model_fields) else "tokens"


Price = Annotated[
    Annotated[TokenPrice, Tag("tokens")] | Annotated[HourlyPrice, Tag("hourly")], Discriminator(_price_kind)
]


class Placement(Section):
    """Replicas of a deployment on one node."""

    node: Name
    price: Price
    quality: Quality = "standard"
    replicas: int = Field(default=1, ge=1, le=64)
    in_flight_max: int = Field(default=64, ge=1, le=100_000)


class Container(Section):
    """The engine runs in a container of this image."""

    image: str = Field(min_length=1)
    runtime: Literal["", "docker", "podman"] = ""
    arguments: list[str] = []


class Engine(Section):
    """How the engine is started. What an engine does not know it refuses, by name."""

    kind: str
    model: str = ""
    context_tokens_max: int = Field(default=2048, ge=16)
    output_tokens_max: int = Field(default=512, ge=1)
    parallel: int = Field(default=4, ge=1, le=4096)
    threads: int = Field(default=1, ge=1, le=1024)
    arguments: list[str] = []
    environment: dict[str, str] = {}
    url: str = ""
    program: str = ""
    served_names: list[str] = []
    tensor_parallel: int = Field(default=1, ge=1, le=1024)
    pipeline_parallel: int = Field(default=1, ge=1, le=1024)
    memory_fraction: float | None = Field(default=None, gt=0, le=1)
    quantization: str = ""
    lora_adapters: dict[str, str] = {}
    container: Container | None = None
    model_revision: str = ""
    model_sha256: str = ""

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
    aliases: list[str] = []
    engine: Engine
    placements: list[Placement] = Field(min_length=1)
    tenants: list[Name] = []
    lane: Lane | None = None

    @property
    def public_model(self) -> str:
        """The name that clients ask for."""
        return self.model or self.name


class Residency(Section):
    """Where a tenant's data may be."""

    allow: list[str] = []
    deny: list[str] = []


class Chips(Section):
    """On which chips a tenant's requests may run."""

    allow: list[Chip] = []
    deny: list[Chip] = []
    prefer: list[Chip] = []


class Weights(Section):
    """How much each scorer counts. All zero: the defaults."""

    cost: float = Field(default=0, ge=0)
    quality: float = Field(default=0, ge=0)
    wait: float = Field(default=0, ge=0)
    affinity: float = Field(default=0, ge=0)
    chip: float = Field(default=0, ge=0)


class Tenant(Named):
    """A tenant and its policy."""

    residency: Residency = Residency()
    chips: Chips = Chips()
    quality_floor: Quality | None = None
    price_max: Usd | None = None
    models: list[str] = []
    weights: Weights = Weights()
    lane: Lane | None = None


class Limit(Named):
    """A cap on one unit within one window for one scope. In USD it is a budget."""

    scope: str = Field(pattern=r"^(organization|tenant/[^/]+(/project/[^/]+(/key/[^/]+)?)?|model/.+|deployment/.+)$")
    unit: Literal["usd", "tokens", "requests", "in_flight"]
    window: Literal["minute", "hour", "day", "month", "none"] = "none"
    cap: Annotated[Decimal, BeforeValidator(_usd), Field(gt=0)]
    time_zone: str = "UTC"

    @model_validator(mode="after")
    def _counts_are_whole(self) -> Self:
        if self.unit != "usd" and self.cap != self.cap.to_integral_value():
            raise ValueError(f"cap {self.cap} of unit {self.unit} must be a whole number")
        return self


def _groups(groups: dict[str, list[str]]) -> dict[str, list[str]]:
    for name, countries in groups.items():
        if name in COUNTRIES or name in GROUPS:
            raise ValueError(f"group {name!r} is a country or a built-in group already")
        unknown = sorted(set(countries) - COUNTRIES)
        if unknown:
            raise ValueError(f"group {name!r}: {', '.join(unknown)} is not a country (ISO 3166-1 alpha-2, lower case)")
    return groups


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
    groups: Annotated[dict[str, list[str]], AfterValidator(_groups)] = {}
    routers: Annotated[list[Router], AfterValidator(_list_of_unique_names), Field(min_length=1)] = [
        Router(name="router-0")
    ]
    nodes: Annotated[list[Node], AfterValidator(_list_of_unique_names)] = []
    deployments: Annotated[list[Deployment], AfterValidator(_list_of_unique_names)] = []
    tenants: Annotated[list[Tenant], AfterValidator(_list_of_unique_names)] = []
    limits: Annotated[list[Limit], AfterValidator(_list_of_unique_names)] = []

    @property
    def nats_url(self) -> str:
        """Where clients of the event plane connect."""
        return f"nats://{self.host}:{self.nats.port}"

    def jurisdictions(self) -> Jurisdictions:
        """The tree with the user's own groups."""
        own = {name: frozenset(countries) for name, countries in self.groups.items()}
        return Jurisdictions({**GROUPS, **own})
