"""The small parts of the gateway process."""

import os
from pathlib import Path

import pytest

from enginehouse.contract import DependencyError
from enginehouse.services.gateway import find_envoy
from enginehouse.services.gateway.gateway import backoff_s
from enginehouse.services.gateway.output import EnvoyOutput


def program(folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / "envoy"
    path.touch(mode=0o755)
    return path


def test_envoy_that_is_named_wins(tmp_path: Path) -> None:
    named = program(tmp_path / "named")
    assert find_envoy(named) == named


def test_named_envoy_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match=r"door\.envoy_binary .* is no program"):
        find_envoy(tmp_path / "nothing")


def test_installed_package_is_found_without_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_envoy().parent.name == "_bin"


def test_envoy_on_path_is_found_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = program(tmp_path / "bin")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_envoy() == on_path


def test_missing_envoy_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(DependencyError, match=r"pip install 'enginehouse\[local\]'"):
        find_envoy()


def test_restarts_wait_longer_each_time_up_to_a_cap() -> None:
    waits = [backoff_s(failures) for failures in (1, 2, 3, 4, 100, 10_000)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 10.0, 10.0]


def test_what_a_crashing_envoy_prints_of_requests_is_not_kept(tmp_path: Path) -> None:
    output = EnvoyOutput(tmp_path / "envoy.log")
    for line in (
        b"[2026-11-21 17:56:44.937][12930][critical][backtrace] [backtrace.h:173] Caught Segmentation fault",
        b"    'authorization', 'Bearer sk-secret'",
        b'current slice length: 69 contents: "secret"',
        b"'x-enginehouse-internal-ticket', 'secret'",
    ):
        output.write(line)
    output.close()
    assert output.lines(10) == [
        "[2026-11-21 17:56:44.937][12930][critical][backtrace] [backtrace.h:173] Caught Segmentation fault"
    ]
    assert "secret" not in (tmp_path / "envoy.log").read_text()
