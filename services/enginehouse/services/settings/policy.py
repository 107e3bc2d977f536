"""Policies as an operator writes them: the parts that a tenant and a rule share, rules, classes of data."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from enginehouse.services.policies import WAIT_S_MAX
from enginehouse.services.settings.sections import Chip, Lane, Name, Named, Number, Quality, Score, Section, Usd

ProjectPath = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}/[a-z0-9-]{1,63}$")]
KeyPath = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}/[a-z0-9-]{1,63}/[a-z0-9-]{1,63}$")]
ClassName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
ChipWord = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9 ._-]{0,39}$")]
TaskName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Residency(Section):
    """Where data may be. `deny` wins; without `allow` every labelled place is allowed."""

    allow: list[str] = Field(default=[])
    deny: list[str] = Field(default=[])


class ChipRule(Section):
    """Which chips are meant. Written as a class alone, "gpu", or as a mapping whose every part narrows."""

    classes: Annotated[list[Chip], BeforeValidator(_listed)] = Field(default=[], alias="class")
    vendor: Annotated[list[ChipWord], BeforeValidator(_listed)] = Field(default=[])
    model: Annotated[list[ChipWord], BeforeValidator(_listed)] = Field(default=[])
    memory_gib: Annotated[Number, Field(gt=0, le=10_000)] | None = None
    count: int | None = Field(default=None, ge=1, le=10_000)

    @model_validator(mode="before")
    @classmethod
    def _a_class_alone(cls, value: object) -> object:
        return {"class": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        return {"class": content.pop("classes"), **content}

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not (self.classes or self.vendor or self.model or self.memory_gib or self.count):
            raise ValueError("names no chip; give class, vendor, model, memory_gib or count")
        return self


class Chips(Section):
    """On which chips requests may run: a chip must match every required rule and no forbidden one."""

    required: list[ChipRule] = Field(default=[])
    forbidden: list[ChipRule] = Field(default=[])
    preferred: list[ChipRule] = Field(default=[])


class QualityRule(Section):
    """How good answers must be: a lowest tier, or a lowest score for a class of tasks."""

    floor: Quality | None = None
    task: str = Field(default="", pattern=r"^([a-z][a-z0-9_-]{0,39})?$")
    score: Score = 0


class Weights(Section):
    """How much each scorer counts. All zero: the defaults."""

    cost: Weight = 0
    quality: Weight = 0
    wait: Weight = 0
    affinity: Weight = 0
    chip: Weight = 0


class Route(Section):
    """A share of a model's requests for one deployment."""

    deployment: Name
    weight: int = Field(ge=1, le=1_000_000)


class PolicyBody(Section):
    """What a policy adds. The same for a tenant and for a rule."""

    residency: Residency = Residency()
    chips: Chips = Chips()
    quality: QualityRule = QualityRule()
    max_price: Annotated[Usd, Field(gt=0)] | None = None
    models: list[str] = Field(default=[])
    weights: Weights = Weights()
    lane: Lane | None = None
    on_tight_budget: Literal["refuse", "clamp", "wait"] | None = None
    wait_s: Annotated[Number, Field(ge=0, le=WAIT_S_MAX, decimal_places=3)] | None = None
    routes: list[Route] = Field(default=[])


class When(Section):
    """To which requests a rule applies: those that match both one of the names and one of the models."""

    tenants: list[Name] = Field(default=[])
    projects: list[ProjectPath] = Field(default=[])
    keys: list[KeyPath] = Field(default=[])
    models: list[str] = Field(default=[])


class Rule(PolicyBody):
    """A rule: when it applies, and what it adds."""

    name: str = Field(min_length=1, max_length=100)
    when: When = When()
    data_class: ClassName | None = None


class Tenant(Named, PolicyBody):
    """A tenant and its own policy."""


class PolicyFile(Section):
    """A file that holds rules and nothing else: what `enginehouse policy` reads."""

    policies: list[Rule] = Field(default=[])
    data_classes: dict[ClassName, Residency] = Field(default={})

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_nothing(cls, value: Any) -> Any:  # noqa: ANN401 (whatever the file holds)
        return {name: part for name, part in value.items() if part is not None} if isinstance(value, dict) else value
