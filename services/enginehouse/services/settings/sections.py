"""What every part of the settings is made of: strict sections, names, money."""

from decimal import Decimal
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Chip = Literal["gpu", "tpu", "lpu", "cpu", "apple"]
Quality = Literal["low", "standard", "high"]
Lane = Literal["direct", "adapter"]


def _decimal(value: object) -> object:
    # YAML reads 0.1 as a binary float; its shortest decimal form is what the operator wrote.
    return Decimal(str(value)) if isinstance(value, float | int) and not isinstance(value, bool) else value


Number = Annotated[Decimal, BeforeValidator(_decimal)]
Usd = Annotated[Number, Field(ge=0, decimal_places=12, le=10**9)]
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of the file. Unknown keys are errors: a misspelled rule must not be a rule that is not there."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Named(Section):
    """A part that other parts refer to by name."""

    name: Name


NamedT = TypeVar("NamedT", bound=Named)


def unique_names(items: list[NamedT]) -> list[NamedT]:
    """The items, if their names differ.

    Raises:
        ValueError: they do not.
    """
    names = [item.name for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names must differ; {', '.join(twice)} is given more than once")
    return items
