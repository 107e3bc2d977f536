"""Accelerators, and rules over them."""

from dataclasses import dataclass

from enginehouse.v1.common_pb2 import ChipClass


@dataclass(frozen=True, slots=True)
class Chip:
    """The accelerator of a replica. Vendor and model in lower case; memory of one chip in bytes, 0 when unknown."""

    chip_class: ChipClass.ValueType
    vendor: str = ""
    model: str = ""
    memory_bytes: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class ChipRule:
    """Which chips are meant. Each part narrows; an empty part means any. Vendor and model in lower case.

    Attributes:
        memory_bytes_min: of one chip. A chip of unknown memory does not reach it.
        count_min: chips that the replica uses together.
    """

    classes: frozenset[ChipClass.ValueType] = frozenset()
    vendors: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    memory_bytes_min: int = 0
    count_min: int = 0

    def matches(self, chip: Chip) -> bool:
        """Whether `chip` is one of those meant."""
        return (
            (not self.classes or chip.chip_class in self.classes)
            and (not self.vendors or chip.vendor in self.vendors)
            and (not self.models or chip.model in self.models)
            and chip.memory_bytes >= self.memory_bytes_min
            and chip.count >= self.count_min
        )

    def __str__(self) -> str:
        parts = [" or ".join(sorted(chip_class_name(one) for one in self.classes))] if self.classes else []
        parts += [" or ".join(sorted(names)) for names in (self.vendors, self.models) if names]
        parts += [f"{self.memory_bytes_min >> 30} GiB or more"] if self.memory_bytes_min else []
        parts += [f"{self.count_min} chips or more"] if self.count_min > 1 else []
        return ", ".join(parts) or "any chip"


def chip_class_name(chip_class: ChipClass.ValueType) -> str:
    """The class as users write it: "gpu", "cpu" and so on."""
    return ChipClass.Name(chip_class).removeprefix("CHIP_CLASS_").lower()
