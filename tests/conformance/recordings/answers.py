"""An answer as it is kept: status, headers and body, without what differs from one time to the next."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

from tests.conformance.recordings.questions import METRICS, Question

Json = Any
DONE = "[DONE]"
_HEX = re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{8,32}(?![0-9a-zA-Z])")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NUMBER = re.compile(r"\d+")
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? ")
_LABEL = re.compile(r'(\w+)="')
# Says where the engine runs and what it was built of.
_HOST_MEMBERS = ("root", "system_fingerprint")
_TIMED_HEADERS = ("date", "content-length")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        status: of HTTP.
        headers: by lower-case name. Of those that change with every answer the value is left out.
        body: JSON, or a text; an empty text where there is none.
        frames: of a stream, with comments as they are; of frames of one form the first.
        families: of a page of metrics, by name.
    """

    status: int
    headers: dict[str, str]
    body: Json = ""
    frames: list[Json] = field(default_factory=list)
    families: dict[str, "Family"] = field(default_factory=dict)

    def as_json(self) -> Json:
        """As it is kept. What is empty is left out."""
        return {name: value for name, value in asdict(self).items() if value or name == "status"}

    @classmethod
    def parse(cls, kept: Json) -> "Answer":
        """What `as_json` made."""
        families = {name: Family(**family) for name, family in kept.get("families", {}).items()}
        return cls(**{**kept, "families": families})


@dataclass(frozen=True, slots=True)
class Family:
    """One name on a page of metrics."""

    kind: str
    labels: list[str]


async def ask(session: aiohttp.ClientSession, address: str, question: Question) -> Answer:
    """The answer of the engine at host:port."""
    headers = dict(question.headers)
    data = question.body if isinstance(question.body, bytes) else None
    if question.body is not None:
        headers.setdefault("Content-Type", "application/json")
    if data is None and question.body is not None:
        data = json.dumps(question.body).encode()
    url = f"http://{address}{question.path}"
    async with session.request(question.method, url, data=data, headers=headers) as answer:
        text = (await answer.read()).decode()
        kept = _headers(answer)
        if question.name == METRICS:
            return Answer(answer.status, kept, families=_families(text))
        if answer.content_type == "text/event-stream":
            return Answer(answer.status, kept, frames=list(_frames(text)))
        return Answer(answer.status, kept, body=_masked(_parsed(text)))


def shape(value: Json) -> Json:
    """The names and types of a JSON value; of a list those of its elements, each once."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        shapes: list[Json] = []
        for element in map(shape, value):
            if element not in shapes:
                shapes.append(element)
        return shapes
    return type(value).__name__


def without_numbers(text: str) -> str:
    """The text with a "#" for every number."""
    return _NUMBER.sub("#", text)


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """Names as they are compared. Numbers of versions in a value are left out."""
    found = {name.lower(): value for name, value in answer.headers.items()}
    return {name: "" if name in _TIMED_HEADERS else value for name, value in sorted(found.items())}


def _parsed(text: str) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _frames(text: str) -> Iterator[Json]:
    """Each event's data, or its comment; of those of one form the first. Choices come side by side in any order."""
    seen: list[Json] = []
    for block in filter(None, text.split("\n\n")):
        frame = _masked(_parsed(block.removeprefix("data: "))) if block.startswith("data: ") else block
        form = shape(frame) if isinstance(frame, dict) else without_numbers(frame)
        if form not in seen:
            seen.append(form)
            yield frame


def _masked(value: Json, name: str = "") -> Json:
    """The value without ids, times, and what tells about the host."""
    if isinstance(value, dict):
        return {member: _masked(inner, member) for member, inner in value.items()}
    if isinstance(value, list):
        return [_masked(element, name) for element in value]
    if name == "created":
        return 0
    if isinstance(value, str):
        if name in _HOST_MEMBERS or value.startswith("/"):
            return "<host>"
        return _HEX.sub(lambda found: f"<{len(found[0])} hex>", _UUID.sub("<uuid>", value))
    return round(value, 3) if isinstance(value, float) else value


def _families(page: str) -> dict[str, Family]:
    """The families of a page in Prometheus' text format."""
    kinds: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    current = ""
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            kinds[name] = kind
            current = name
        elif line and not line.startswith("#") and (sample := _SAMPLE.match(line)):
            found = _LABEL.findall(sample["labels"] or "")
            labels.setdefault(current, set()).update(set(found) - {"le"})
    return {name: Family(kind, sorted(labels.get(name, ()))) for name, kind in sorted(kinds.items())}
