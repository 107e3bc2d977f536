"""`enginehouse policy` against a real control, over the operator's socket."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from enginehouse.cli.app import app
from enginehouse.cli.policy import Change, changes
from enginehouse.services.access_log import read_line
from enginehouse.services.control import Control, ControlSettings, DeclaredResources, SystemClock
from enginehouse.services.local import StateFolder
from enginehouse.services.local.ports import write_settings
from enginehouse.services.settings import load, resources
from enginehouse.v1 import admin_pb2, events_pb2, router_pb2
from tests.integration.control.support import MemoryStore, RecordingSink

SETTINGS = """\
place: eu/de
jurisdictions: {groups: {nordics: [se, no]}}
nodes: [{name: n1, place: eu/de}]
deployments:
  - {name: small, engine: {kind: echo}, placements: [{node: n1, price: {input: 1}}]}
tenants: [{name: acme}]
"""
RULES = """\
policies:
  - name: home
    when: {tenants: [acme]}
    data_class: personal
  - name: cheap
    max_price: 0.01
data_classes: {personal: {allow: [eu, nordics]}}
"""


def invoke(arguments: list[str]) -> Result:
    return CliRunner().invoke(app, arguments)


@dataclass
class Operated:
    """A running control, as the command finds it."""

    folder: Path
    state: StateFolder
    events: RecordingSink

    async def run(self, *words: str) -> Result:
        arguments = ["policy", *words, "--state", str(self.state.path)]
        return await asyncio.to_thread(invoke, arguments)

    def file(self, text: str) -> str:
        path = self.folder / "rules.yaml"
        path.write_text(text)
        return str(path)

    def told(self, what: str) -> list[events_pb2.PolicyChanged]:
        heard = [event.payload for event in self.events.told if (event.kind, event.what) == ("policy", what)]
        return [payload for payload in heard if isinstance(payload, events_pb2.PolicyChanged)]


@pytest.fixture
async def operated() -> AsyncIterator[Operated]:
    with tempfile.TemporaryDirectory(prefix="eh") as name:  # a socket's path must be short
        folder = Path(name)
        (folder / "enginehouse.yaml").write_text(SETTINGS)
        settings = load(folder / "enginehouse.yaml")
        state = StateFolder(folder / "state")
        state.acquire()
        write_settings(settings, state.settings_file)
        events = RecordingSink()
        control = Control(
            ControlSettings(
                database_url=f"sqlite:///{folder}/control.db",
                socket_path=state.control_socket,
                jurisdictions=settings.jurisdiction_tree,
            ),
            clock=SystemClock(),
            events=events,
            desired=MemoryStore(),
            read_line=read_line,
        )
        await control.start()
        await control.apply_declared(
            DeclaredResources(tenants=resources.tenants(settings), deployments=resources.deployments(settings))
        )
        yield Operated(folder, state, events)
        await control.stop(grace_s=0)
        state.release()


async def test_a_file_is_checked_applied_shown_and_applied_again_for_nothing(operated: Operated) -> None:
    checked = await operated.run("check", operated.file(RULES))
    assert checked.exit_code == 0, checked.output
    assert "+ rule home" in checked.output
    assert operated.told("applied") == []
    applied = await operated.run("apply", operated.file(RULES))
    assert applied.exit_code == 0, applied.output
    assert applied.output.splitlines() == [
        "+ rule home",
        "+ rule cheap",
        "+ data class personal",
        "revision 1 is in force",
    ]
    shown = await operated.run("show")
    assert shown.output.startswith("# policies/default, revision 1, ")
    again = await operated.run("apply", operated.file(shown.output))
    assert again.output == "nothing changes\n"
    assert len(operated.told("applied")) == 1


async def test_what_changes_is_said_rule_by_rule(operated: Operated) -> None:
    await operated.run("apply", operated.file(RULES))
    changed = RULES.replace("0.01", "0.02").replace("name: home", "name: house")
    applied = await operated.run("apply", operated.file(changed))
    assert applied.output.splitlines() == [
        "+ rule house",
        "~ rule cheap",
        "    - {name: cheap, max_price: 0.01}",
        "    + {name: cheap, max_price: 0.02}",
        "- rule home",
        "revision 2 is in force",
    ]


async def test_a_file_that_is_wrong_in_itself_is_refused_by_line_and_everybody_hears(operated: Operated) -> None:
    await operated.run("apply", operated.file(RULES))
    refused = await operated.run("apply", operated.file(RULES.replace("[eu, nordics]", "[eu, atlantis]")))
    assert refused.exit_code == 2
    assert "rules.yaml:7: data_classes.personal.allow.1: jurisdiction 'atlantis'" in refused.output
    assert "refused; the rules in force are as they were" in refused.output
    (event,) = operated.told("refused")
    assert event.revision == 1
    assert "rules.yaml:7: " in event.problems[0]
    assert "revision 1," in (await operated.run("show")).output


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tenants: [acme]", "tenants: [acme, gone]", "rules.yaml:3: policies.0.when.tenants.1: there is no tenant"),
        ("max_price: 0.01", "models: [gone]", "rules.yaml:6: policies.1.models.0: no deployment offers 'gone'"),
        (
            "max_price: 0.01",
            "routes:\n      - {deployment: gone, weight: 1}",
            "rules.yaml:7: policies.1.routes.0.deployment: there is no deployment 'gone'; there is small",
        ),
    ],
)
async def test_what_only_control_can_know_is_refused_by_line_too(
    operated: Operated, old: str, new: str, said: str
) -> None:
    file = operated.file(RULES.replace(old, new))
    for command, told in (("check", 0), ("apply", 1)):
        refused = await operated.run(command, file)
        assert refused.exit_code == 2
        assert said in refused.output
        assert len(operated.told("refused")) == told
    assert operated.told("applied") == []


async def test_without_a_mesh_a_file_is_checked_by_the_settings(tmp_path: Path) -> None:
    (tmp_path / "enginehouse.yaml").write_text(SETTINGS)
    rules = tmp_path / "rules.yaml"
    arguments = [
        "policy",
        "check",
        str(rules),
        "--config",
        str(tmp_path / "enginehouse.yaml"),
        "--state",
        str(tmp_path),
    ]
    rules.write_text(RULES)
    right = await asyncio.to_thread(invoke, arguments)
    assert (right.exit_code, "no mesh runs" in right.output) == (0, True)
    rules.write_text(RULES.replace("acme", "gone"))
    wrong = await asyncio.to_thread(invoke, arguments)
    assert wrong.exit_code == 2
    assert "rules.yaml:3: policies.0.when.tenants.0: there is no tenant" in wrong.output


def test_changes_are_found_by_name_and_so_is_another_order() -> None:
    def rules(*names: str, **classes: str) -> admin_pb2.PolicySet:
        return admin_pb2.PolicySet(
            rules=[admin_pb2.PolicyRule(name=name) for name in names],
            data_classes={name: router_pb2.Residency(allow=[place]) for name, place in classes.items()},
        )

    assert changes(rules("a", "b", x="eu"), rules("a", "b", x="eu")) == []
    assert [(one.sign, one.what, one.name) for one in changes(rules("a", x="eu", y="de"), rules("b", x="fr"))] == [
        ("+", "rule", "b"),
        ("-", "rule", "a"),
        ("~", "data class", "x"),
        ("-", "data class", "y"),
    ]
    assert changes(rules("a", "b"), rules("b", "a")) == [Change("~", "order of rules", "", "a\nb", "b\na")]
