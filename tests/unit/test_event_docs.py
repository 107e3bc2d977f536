"""docs/events.md lists what events.proto has and what the code publishes, no more and no less."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginehouse.services.node.replacement import Step
from enginehouse.v1 import events_pb2, node_pb2
from tests.support.event_docs import read_event_docs

SERVICES = Path(__file__).parents[2] / "services" / "enginehouse" / "services"
DOCS = read_event_docs()
MESSAGES = events_pb2.DESCRIPTOR.message_types_by_name


def published() -> Iterator[tuple[str, str]]:
    """Kind and what of every event that the code names in so many words; either is empty when it is computed."""
    for path in SERVICES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                words = [_word(argument) for argument in node.args]
                if name in ("publish", "announce", "_publish", "Event") and len(words) == 4:
                    yield words[0], words[2]
                elif name == "_publish" and len(words) == 2 and path.parent.name == "node":
                    yield "node", words[0]
                elif name in ("changed", "_noted", "_write") and words and words[-1]:
                    yield "resource", words[-1]


def _word(argument: ast.expr) -> str:
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else ""


def test_every_message_of_the_proto_is_a_documented_payload() -> None:
    assert set(MESSAGES) == set(DOCS.payloads.values()) == set(DOCS.fields)


@pytest.mark.parametrize("message", MESSAGES)
def test_every_field_of_a_payload_is_documented(message: str) -> None:
    assert {field.name for field in MESSAGES[message].fields} <= DOCS.fields[message]


def test_every_state_of_a_replica_has_its_event() -> None:
    states = {
        name.removeprefix("REPLICA_STATE_").lower() for name in node_pb2.ReplicaState.DESCRIPTOR.values_by_name
    } - {"unspecified"}
    assert {f"replica.{state}" for state in states} == {name for name in DOCS.payloads if name.startswith("replica.")}


def test_what_the_code_publishes_is_documented() -> None:
    found = set(published())
    kinds = {kind for kind, _ in found if kind}
    assert kinds == {name.partition(".")[0] for name in DOCS.payloads}
    named = {f"{kind}.{what}" for kind, what in found if kind and what}
    assert named <= set(DOCS.payloads)
    steps = {f"replacement.{step}" for step in Step}
    computed = {name for name in DOCS.payloads if name.startswith("replica.")} | {"limit.overrun", "limit.written_off"}
    computed |= steps
    assert set(DOCS.payloads) - named == computed
