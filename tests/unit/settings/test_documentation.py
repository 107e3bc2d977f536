"""The examples of docs/policies.md do what it says they do."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from enginehouse.contract import RequestError
from enginehouse.services.settings import catalog_of, load, load_policies
from tests.unit.settings.support import written

PAGE = Path(__file__).parents[3] / "docs" / "policies.md"
SURROUNDINGS = """\
place: eu/de
nodes: [{name: eu-de, place: eu/de}]
deployments:
  - &one {name: llama-8b, aliases: [chat], engine: {kind: echo}, placements: [{node: eu-de, price: {input: 1}}]}
  - {<<: *one, name: llama-70b}
tenants: [{name: acme}, {name: clinic}]
"""


class Block(NamedTuple):
    """A fenced block: what it says it is, and its text."""

    kind: str
    text: str


def blocks() -> list[Block]:
    return [
        Block(*found) for found in re.findall(r"^```([a-z ]*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("text", [block.text for block in blocks() if block.kind == "yaml"])
def test_an_example_is_taken(tmp_path: Path, text: str) -> None:
    surroundings = yaml.safe_load(SURROUNDINGS)
    whole = surroundings | yaml.safe_load(text)
    load(written(tmp_path, yaml.safe_dump(whole)))
    if "policies" in whole:
        catalog = catalog_of(load(written(tmp_path, SURROUNDINGS)))
        assert len(load_policies(written(tmp_path, text), catalog).message.rules) == len(whole["policies"])


def test_what_is_refused_is_refused_in_those_words(tmp_path: Path) -> None:
    catalog = catalog_of(load(written(tmp_path, SURROUNDINGS)))
    refused = [block.text for block in blocks() if block.kind == "yaml refused"]
    words = [block.text for block in blocks() if block.kind == "text"]
    assert len(refused) == 2
    for text, expected in zip(refused, words, strict=True):
        file = tmp_path / "rules.yaml"
        file.write_text(text)
        with pytest.raises(RequestError) as caught:
            load_policies(file, catalog)
        assert caught.value.message.replace(f"{tmp_path}/", "") + "\n" == expected


def test_the_page_names_every_key_of_a_rule() -> None:
    from enginehouse.services.settings.policy import Rule

    table = PAGE.read_text().split("## Keys", maxsplit=1)[1].split("\n## ", maxsplit=1)[0]
    assert {name for name in Rule.model_fields if f"`{name}`" not in table} == set()


def test_the_commented_rules_of_the_shipped_settings_are_right(tmp_path: Path) -> None:
    shipped = PAGE.parents[1] / "deploy" / "enginehouse.yaml"
    text = shipped.read_text()
    start = text.index("# jurisdictions:\n")
    lines = text[start:].split("\n\n", maxsplit=1)[0].splitlines()
    example = "\n".join(line.removeprefix("# ") for line in lines)
    settings = load(written(tmp_path, text + "\n" + example + "\n"))
    assert len(settings.policies) == 2
