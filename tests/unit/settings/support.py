"""Settings files of one change each."""

from pathlib import Path

import pytest

from enginehouse.contract import RequestError
from enginehouse.services.settings import load

BASE = """\
place: eu/de
nodes:
  - {name: n1, place: eu/de}
  - {name: n2, place: "aws:us-east-1"}
deployments:
  - name: small
    aliases: [default]
    engine: {kind: echo}
    placements:
      - {node: n1, price: {input: 1}}
  - name: large
    engine: {kind: echo}
    placements:
      - {node: n2, price: {hour: 2.5, output_tokens_per_second: 100}, quality_scores: {code: 0.7}}
tenants:
  - name: acme
"""
BASE_LINES = BASE.count("\n")


def written(folder: Path, text: str) -> Path:
    """A file that holds `text`."""
    file = folder / "e.yaml"
    file.write_text(text)
    return file


def refusal(folder: Path, text: str) -> list[str]:
    """The lines that a file is refused with, less its folder."""
    with pytest.raises(RequestError) as caught:
        load(written(folder, text))
    return caught.value.message.replace(f"{folder}/", "").split("\n")
