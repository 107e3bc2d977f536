"""What docs/events.md says about events, for tests that hold it against the proto, the code, and what is published."""

import re
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (?P<names>`[a-z_.`, ]+`) \|.*\| `(?P<payload>[A-Za-z]+)` \|$", re.MULTILINE)
_SECTION = re.compile(r"^### (?P<payload>[A-Za-z]+)\n(?P<text>.*?)(?=^###|\Z)", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"`([a-z_.]+)`")


@dataclass(frozen=True, slots=True)
class EventDocs:
    """The document, read.

    Attributes:
        payloads: the name of the payload's message by "kind.what".
        fields: the names in each payload's section.
    """

    payloads: dict[str, str]
    fields: dict[str, set[str]]


def read_event_docs() -> EventDocs:
    """Reads docs/events.md."""
    text = (_ROOT / "docs" / "events.md").read_text()
    payloads = {name: row["payload"] for row in _ROW.finditer(text) for name in _NAME.findall(row["names"])}
    sections = text.partition("## Payloads")[2]
    fields = {one["payload"]: set(_NAME.findall(one["text"])) for one in _SECTION.finditer(sections)}
    return EventDocs(payloads, fields)
