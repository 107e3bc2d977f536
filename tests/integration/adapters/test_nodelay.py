"""Nagle's algorithm would keep a first token back for 40 ms: it is off on every socket that tokens pass."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.adapters.spoken import door

DESCRIPTORS = Path("/proc/self/fd")


def established_sockets(port: int) -> Iterator[int]:
    """TCP_NODELAY of each connection of this process, at either end, to a server at `port`."""
    for descriptor in DESCRIPTORS.iterdir():
        try:
            if not str(descriptor.readlink()).startswith("socket:"):
                continue
            copy = socket.socket(fileno=os.dup(int(descriptor.name)))
        except OSError:  # it was closed meanwhile
            continue
        with copy:
            if copy.family not in (socket.AF_INET, socket.AF_INET6) or copy.type != socket.SOCK_STREAM:
                continue
            try:
                ports = (copy.getsockname()[1], copy.getpeername()[1])
            except OSError:  # it listens
                continue
            if port in ports:
                yield copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="only Linux lists a process's sockets")
async def test_the_nodes_own_connections_send_at_once(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with door("vllm", session, tmp_path) as (asked, _):
        await asked.ask("r-1", b'{"model":"public","messages":[{"role":"user","content":"a"}]}')
        found = list(established_sockets(int(asked.address.rpartition(":")[2])))
    assert len(found) >= 2  # the server's end and the client's
    assert all(found)
