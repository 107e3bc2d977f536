"""AMD GPUs, by rocm-smi (ROCm 5 to 7; its keys changed once, so both are read)."""

import json
import re
from collections.abc import Mapping

from enginehouse.engines.inventory.accelerator import AMD, Accelerator, AcceleratorUse
from enginehouse.engines.inventory.commands import RunCommand
from enginehouse.v1 import common_pb2

_QUERY = (
    "rocm-smi",
    "--showproductname",
    "--showuniqueid",
    "--showmeminfo",
    "vram",
    "--showuse",
    "--json",
)
_CARD = re.compile(r"card(\d+)")
_NAMES = ("Card Series", "Card series", "Device Name", "Card Model", "Card model")
_NOISE = re.compile(r"\b(amd|ati|advanced micro devices,? inc\.?|oam)\b|[\[\]/]", re.IGNORECASE)


class RocmProbe:
    """Looks for AMD GPUs."""

    def __init__(self, run: RunCommand) -> None:
        self._run = run

    def detect(self) -> list[Accelerator]:
        """The GPUs by index."""
        return [_accelerator(index, card) for index, card in self._cards()]

    def use(self) -> dict[str, AcceleratorUse]:
        """What each GPU does now, by id."""
        return {
            _id(index, card): AcceleratorUse(_whole(card, "VRAM Total Used Memory (B)"), _share(card))
            for index, card in self._cards()
        }

    def _cards(self) -> list[tuple[int, Mapping[str, str]]]:
        try:
            answer = json.loads(self._run(_QUERY) or "{}")
        except ValueError:
            return []
        if not isinstance(answer, dict):
            return []
        cards = ((_CARD.fullmatch(name), card) for name, card in answer.items())
        return sorted((int(match[1]), card) for match, card in cards if match and isinstance(card, dict))


def _accelerator(index: int, card: Mapping[str, str]) -> Accelerator:
    name = next((card[key] for key in _NAMES if card.get(key, "").strip() not in ("", "N/A")), "")
    return Accelerator(
        id=_id(index, card),
        index=index,
        chip_class=common_pb2.CHIP_CLASS_GPU,
        vendor=AMD,
        model=" ".join(_NOISE.sub(" ", name).split()).lower(),
        memory_bytes=_whole(card, "VRAM Total Memory (B)"),
    )


def _id(index: int, card: Mapping[str, str]) -> str:
    unique = card.get("Unique ID", "N/A")
    return f"amd-{index}" if unique in ("", "N/A") else f"amd-{unique}"


def _whole(card: Mapping[str, str], key: str) -> int:
    text = str(card.get(key, "")).strip()
    return int(text) if text.isdigit() else 0


def _share(card: Mapping[str, str]) -> float | None:
    text = str(card.get("GPU use (%)", "")).strip()
    return int(text) / 100 if text.isdigit() else None
