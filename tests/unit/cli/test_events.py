"""Events on one line each."""

import json

from nats.aio.client import Client
from nats.aio.msg import Msg

from enginehouse.cli.events import describe


def message(kind: str, data: dict[str, object]) -> Msg:
    headers = {"ce-type": f"enginehouse.{kind}.v1", "ce-subject": "default", "ce-time": "2026-01-02T03:04:05.678Z"}
    about, _, what = kind.partition(".")
    subject = f"enginehouse.eu-de.{about}.default.{what}"
    return Msg(Client(), subject=subject, data=json.dumps(data).encode(), headers=headers)


def test_a_refused_policy_says_what_was_wrong_with_it_and_how_much_more() -> None:
    line = describe(message("policy.refused", {"revision": "3", "problems": ["rules.yaml:2: no", "b", "c"]}))
    assert line.startswith("03:04:05.678 eu-de ")
    assert line.endswith("default revision=3 problems='rules.yaml:2: no' and 2 more")
    assert describe(message("policy.refused", {"problems": ["b"]})).endswith("problems='b'")


def test_an_applied_policy_says_its_revision() -> None:
    assert describe(message("policy.applied", {"revision": "4", "hash": "x"})).endswith("default revision=4")
