"""The gateway process: Envoy dies, is started again, is drained; and what control learns of all that."""

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio

from enginehouse.contract import DependencyError
from enginehouse.services.gateway import Address, Gateway
from tests.integration.gateway import stub_engine
from tests.integration.gateway.mesh import QUICK_SHIPPING, Mesh, running_gateway, running_mesh
from tests.integration.gateway.stub_router import direct
from tests.support.nats import free_port
from tests.support.waiting import until

LINE_KEYS = {
    *("start_time", "end_time", "request_id", "router", "ticket", "decision", "outcome", "lane", "usage"),
    *("usage_trailers", "replica", "method", "path", "response_code", "response_code_details", "response_flags"),
    *("grpc_status", "upstream_host", "upstream_attempts", "bytes_received", "bytes_sent", "duration_ms"),
}


@pytest_asyncio.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    """A mesh of the test's own, with a quick engine behind every request."""
    async with running_mesh(tmp_path / "gateway", engines=1) as mesh:
        mesh.answer(direct(mesh.engines[0].address))
        yield mesh


def start_of(mesh: Mesh) -> str:
    assert mesh.gateway.envoy_start is not None
    return mesh.gateway.envoy_start


def kill(mesh: Mesh, number: signal.Signals = signal.SIGKILL) -> None:
    assert mesh.gateway.envoy_pid is not None
    os.kill(mesh.gateway.envoy_pid, number)


async def restarted(mesh: Mesh, before: str) -> None:
    await until(lambda: mesh.gateway.envoy_start not in (None, before), "Envoy was started again")


async def test_line_holds_what_settlement_needs_and_no_text_key_or_query(mesh: Mesh) -> None:
    sent = {"x-api-key": "sk-secret", "x-enginehouse-session": "secret-session", "user-agent": "secret-agent"}

    reply = await mesh.request("/v1/messages?secret=1", b'{"prompt":"secret"}', headers=sent)
    line = await mesh.line(reply)

    assert set(line) == LINE_KEYS
    assert line["request_id"] == reply.headers["x-request-id"]
    assert (line["router"], line["ticket"], line["outcome"]) == ("router-1", "dGlja2V0", "admitted")
    assert (line["method"], line["path"], line["lane"]) == ("POST", "/v1/messages", "direct")
    assert (line["response_code"], line["response_flags"], line["grpc_status"]) == (200, "-", None)
    assert (line["upstream_host"], line["upstream_attempts"]) == (str(mesh.engines[0].address), 1)
    started, ended = (datetime.fromisoformat(line[name]) for name in ("start_time", "end_time"))
    assert started <= ended <= datetime.now(UTC)
    written = [path.read_text() for path in mesh.settings.state_folder.rglob("*") if path.is_file()]
    assert [text for text in written if re.search("secret|sk-client", text)] == []


async def test_local_lane_is_not_logged(mesh: Mesh) -> None:
    mesh.reset()  # which sends everything into the local lane
    for _ in range(3):
        await mesh.request("/v1/models", b"", method="GET")
    mesh.answer(direct(mesh.engines[0].address))
    await mesh.line(await mesh.request())
    assert len(mesh.lines()) == 1


async def test_lines_reach_control_in_order(mesh: Mesh) -> None:
    ids = [(await mesh.request()).headers["x-request-id"] for _ in range(20)]
    lines = mesh.control.lines.setdefault(start_of(mesh), [])
    await until(lambda: len(lines) == 20, "20 lines")
    assert [json.loads(line)["request_id"] for line in lines] == ids


async def test_log_of_a_running_envoy_is_complete_up_to_moments_that_move_on(mesh: Mesh) -> None:
    await until(lambda: start_of(mesh) in mesh.control.complete_until, "a first report")
    answered_at = datetime.now(UTC)
    await until(lambda: mesh.control.complete_until[start_of(mesh)] > answered_at, "a later report")
    assert mesh.control.gaps == []


async def test_lines_flushed_before_a_kill_survive_it_and_control_hears_of_one_gap(mesh: Mesh) -> None:
    killed = start_of(mesh)
    replies = [await mesh.request() for _ in range(5)]
    for reply in replies:
        await mesh.line(reply)
    kill(mesh)
    await restarted(mesh, killed)

    await until(lambda: len(mesh.control.lines[killed]) == 5, "the lines of the killed Envoy")
    await until(lambda: mesh.control.gaps, "the gap")
    assert (await mesh.request()).status == 200
    assert mesh.gateway.restarts == 1
    await mesh.gateway.stop()
    assert [start for start, _ in mesh.control.gaps] == [killed]


async def test_envoy_that_keeps_dying_is_started_again_and_again(mesh: Mesh) -> None:
    for _ in range(3):
        before = start_of(mesh)
        kill(mesh, signal.SIGSEGV)
        await restarted(mesh, before)
    assert (await mesh.request()).status == 200
    assert mesh.gateway.restarts == 3


async def test_stop_lets_streams_in_flight_end_and_the_log_is_complete_for_ever(mesh: Mesh) -> None:
    gate = stub_engine.Gate()
    mesh.engines[0].serve = stub_engine.events('{"usage":{"completion_tokens":3}}', end=gate.serve)
    start = start_of(mesh)
    async with mesh.client.post(f"{mesh.url}/v1/chat/completions", json={}) as response:
        await response.content.readany()
        stopping = asyncio.create_task(mesh.gateway.stop())
        await until(lambda: not mesh.gateway.ready.is_set(), "the stop has begun")
        gate.open()
        await response.read()
    await stopping

    assert [line["usage"] for line in mesh.lines()] == [{"output": 3}]
    assert len(mesh.control.lines[start]) == 1
    assert mesh.control.complete_until[start].year == 9999
    assert mesh.control.gaps == []


async def test_stop_cuts_streams_after_the_grace_and_still_logs_them(tmp_path: Path) -> None:
    async with running_mesh(tmp_path, engines=1, drain_grace_s=0.1) as mesh:
        mesh.answer(direct(mesh.engines[0].address))
        mesh.engines[0].serve = stub_engine.events('{"usage":{"completion_tokens":3}}', end=stub_engine.hang)
        start = start_of(mesh)
        async with mesh.client.post(f"{mesh.url}/v1/chat/completions", json={}) as response:
            await response.content.readany()
            await mesh.gateway.stop()
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert [line["usage"] for line in mesh.lines()] == [{"output": 3}]
        assert mesh.control.complete_until[start].year == 9999


async def test_log_is_rotated_without_losing_a_line(tmp_path: Path) -> None:
    shipping = replace(QUICK_SHIPPING, segment_bytes=2000, segments_kept=2)
    async with running_mesh(tmp_path, engines=1, shipping=shipping) as mesh:
        mesh.answer(direct(mesh.engines[0].address))
        start = start_of(mesh)
        folder = mesh.settings.state_folder / "access-log"
        ids: list[str] = []

        def all_are_shipped() -> bool:
            return len(mesh.control.lines.get(start, [])) == len(ids)

        for _ in range(4):
            ids.extend([(await mesh.request()).headers["x-request-id"] for _ in range(10)])
            await until(all_are_shipped, "every line")
        await until(lambda: len(list(folder.glob("*.jsonl"))) == 3, "old files are deleted")
        assert (folder / f"{start}.jsonl").exists()
    assert [json.loads(line)["request_id"] for line in mesh.control.lines[start]] == ids
    assert mesh.control.complete_until[start].year == 9999
    assert mesh.control.gaps == []


async def test_envoy_does_not_outlive_a_cancelled_gateway(mesh: Mesh, tmp_path: Path) -> None:
    listen = Address("127.0.0.1", free_port())
    gateway = Gateway(replace(mesh.settings, listen=listen, state_folder=tmp_path / "other"), shipping=QUICK_SHIPPING)
    task = asyncio.create_task(gateway.run())
    await until(lambda: gateway.ready.is_set() or task.done(), "Envoy is ready")
    pid = gateway.envoy_pid
    assert pid is not None

    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert not psutil.pid_exists(pid)


async def test_envoy_starts_without_a_router_and_serves_once_there_is_one(tmp_path: Path) -> None:
    async with running_mesh(tmp_path / "first", engines=1) as mesh:
        await mesh.router.stop()
        settings = replace(mesh.settings, listen=Address("127.0.0.1", free_port()), state_folder=tmp_path)
        gateway = Gateway(settings, shipping=QUICK_SHIPPING)
        async with running_gateway(gateway):
            url = f"http://{settings.listen}/v1/chat/completions"
            async with mesh.client.post(url, json={}) as response:
                assert response.status == 503
            mesh.answer(direct(mesh.engines[0].address))
            await mesh.router.start()
            status = 0
            async with asyncio.timeout(10):
                while status != 200:
                    async with mesh.client.post(url, json={}) as response:
                        status = response.status
                    await asyncio.sleep(0.01)


async def test_port_in_use_is_a_clear_error(tmp_path: Path, mesh: Mesh) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        listen = replace(mesh.settings.listen, port=port)
        gateway = Gateway(replace(mesh.settings, listen=listen, state_folder=tmp_path / "other"))
        with pytest.raises(DependencyError, match=rf"127\.0\.0\.1:{port}.*in use.*stop what uses that port"):
            await gateway.start()


async def test_port_of_another_envoy_is_not_shared_with_it(tmp_path: Path, mesh: Mesh) -> None:
    with pytest.raises(DependencyError, match="in use"):
        await Gateway(replace(mesh.settings, state_folder=tmp_path / "other")).start()


async def test_second_gateway_in_a_state_folder_is_a_clear_error(mesh: Mesh) -> None:
    with pytest.raises(DependencyError, match="another gateway uses"):
        await Gateway(mesh.settings).start()
    assert (await mesh.request()).status == 200


async def test_log_of_a_killed_gateway_is_shipped_by_the_next_with_a_gap(mesh: Mesh) -> None:
    replies = [await mesh.request() for _ in range(3)]
    for reply in replies:
        await mesh.line(reply)
    await mesh.control.stop()
    start = start_of(mesh)
    await mesh.gateway.stop()
    folder = mesh.settings.state_folder / "access-log"
    (folder / f"{start}.complete").unlink()  # as if the gateway and its Envoy had been killed
    mesh.control.lines.clear()
    await mesh.control.start()

    async with running_gateway(Gateway(mesh.settings, shipping=QUICK_SHIPPING)):
        await until(lambda: mesh.control.gaps, "the gap")

    assert [start for start, _ in mesh.control.gaps] == [start]
    assert len(mesh.control.lines[start]) == 3
