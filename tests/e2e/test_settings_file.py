"""Settings as a user gets them wrong: file, line, key, value and what was expected are named, nothing is started."""

import os
import socket
from pathlib import Path

import pytest
import yaml

from tests.support.mesh import assert_says, run_alone

MINIMAL = """\
place: eu/de
door: {port: 0, drain_grace_s: 1}
nats: {port: 0}
nodes:
  - {name: eu-de, place: eu/de, drain_grace_s: 1}
deployments:
  - name: echo
    engine: {kind: echo, arguments: [--test-controls]}
    placements:
      - {node: eu-de, price: {request: 0.001}}
tenants:
  - name: anywhere
"""


def settings_file(folder: Path, text: str) -> Path:
    """A settings file in `folder`, under a name that nobody looks for by itself."""
    file = folder / "mesh.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize("command", [("config", "check"), ("up", "--no-ui")], ids=" ".join)
def test_settings_that_are_no_yaml_are_refused_with_file_and_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    file = settings_file(tmp_path, "place: eu/de\nnodes: [{name: x\nlimits: 3\n")
    assert_says(run_alone(tmp_path, *command, "--config", str(file)), str(file), "not YAML", f"{file.name}:3:")
    assert [one.name for one in tmp_path.iterdir()] == ["mesh.yaml"]


WRONG = """\
place: eu/de
doors: 1
door:
  prot: 1
  port: eighty
  admin_port: 70000
nodes:
  - place: eu/de
limits:
  - name: a
    scope: organization
    unit: euro
    cap: 1
"""
WHAT_IS_WRONG = {
    "2: doors": "there is no such key",
    "4: door.prot": "there is no such key",
    "5: door.port": "valid integer, unable to parse string as an integer; found 'eighty'",
    "6: door.admin_port": "less than or equal to 65535; found 70000",
    "8: nodes.0.name": "this key is missing",
    "12: limits.0.unit": "should be 'usd', 'tokens', 'requests' or 'in_flight'; found 'euro'",
}


def test_every_wrong_setting_is_named_with_its_line_its_value_and_what_was_expected(tmp_path: Path) -> None:
    file = settings_file(tmp_path, WRONG)
    done = run_alone(tmp_path, "config", "check", "--config", str(file))
    assert_says(done)
    lines = dict(zip(sorted(WHAT_IS_WRONG), sorted(done.stderr.removeprefix("error: ").splitlines()), strict=True))
    for where, line in lines.items():
        assert line.startswith(f"{file}:{where}: "), line
        assert line.endswith(WHAT_IS_WRONG[where]), line


def test_place_that_does_not_exist_is_named_with_its_line(tmp_path: Path) -> None:
    file = settings_file(tmp_path, "place: eu/de\nnodes:\n  - name: a\n    place: narnia\n")
    done = run_alone(tmp_path, "config", "check", "--config", str(file))
    assert_says(done, f"{file}:4: nodes.0.place", "narnia")


@pytest.mark.parametrize("command", [("config", "check"), ("up", "--no-ui"), ("demo", "--with-mesh")], ids=" ".join)
def test_settings_file_that_does_not_exist_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    assert_says(run_alone(tmp_path, *command, "--config", "nowhere.yaml"), "nowhere.yaml: no such file", "--config")


@pytest.mark.parametrize("key", ["door.envoy_binary", "nats.server_binary"])
def test_program_that_is_missing_is_named_with_its_setting(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    file = settings_file(tmp_path, MINIMAL.replace(f"{section}: {{", f"{section}: {{{name}: /nowhere/program, "))
    done = run_alone(tmp_path, "up", "--no-ui", "--config", str(file))
    assert_says(done, f"{key} is '/nowhere/program', which is no program")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("key", ["door", "nats"])
def test_port_in_use_is_named_with_who_uses_it_and_its_setting(tmp_path: Path, key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = settings_file(tmp_path, MINIMAL.replace(f"{key}: {{port: 0", f"{key}: {{port: {port}"))
        done = run_alone(tmp_path, "up", "--no-ui", "--config", str(file))
    assert_says(done, f"port {port} ", f"({key}.port)", f"process {os.getpid()} ", f"set another {key}.port")


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    shown = []
    file = settings_file(tmp_path, "place: eu/de\n")
    for text, environment in (
        ("place: eu/de\n", {}),
        ("place: eu/de\ndoor: {port: 1111, longest_request_s: 7}\n", {}),
        ("place: eu/de\ndoor: {port: 1111, longest_request_s: 7}\n", {"ENGINEHOUSE_DOOR__PORT": "2222"}),
    ):
        file.write_text(text)
        done = run_alone(tmp_path, "config", "show", "--config", str(file), environment=environment)
        assert done.returncode == 0, done
        door = yaml.safe_load(done.stdout)["door"]
        shown.append((door["port"], door["longest_request_s"]))
    assert shown == [(8080, 600), (1111, 7), (2222, 7)]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_alone(
            tmp_path,
            *("up", "--no-ui", "--config", str(file), "--port", str(port)),
            environment={"ENGINEHOUSE_DOOR__PORT": "2222"},
        )
    assert_says(done, f"port {port} ")


def test_variable_that_is_wrong_is_named_as_such(tmp_path: Path) -> None:
    file = settings_file(tmp_path, "place: eu/de\n")
    environment = {"ENGINEHOUSE_DOOR__PORT": "x"}
    done = run_alone(tmp_path, "config", "check", "--config", str(file), environment=environment)
    assert_says(done, "ENGINEHOUSE_DOOR__PORT: door.port: ", "found 'x'")


def test_file_beside_the_user_is_read_before_the_one_that_is_shipped(tmp_path: Path) -> None:
    assert yaml.safe_load(run_alone(tmp_path, "config", "show").stdout)["limits"]
    (tmp_path / "enginehouse.yaml").write_text("place: us/va\n")
    shown = yaml.safe_load(run_alone(tmp_path, "config", "show").stdout)
    assert (shown["place"], shown["limits"]) == ("us/va", [])
