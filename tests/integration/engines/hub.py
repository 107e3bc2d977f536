"""A small model hub: the part of the Hugging Face hub's HTTP API that its client needs for one model."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A hub with one model, `owner/tiny`. `cut_at` breaks off the next download of a large file there, once."""

    files: dict[str, bytes]
    url: str = ""
    cut_at: int | None = None
    damaged: bool = False
    ranges: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)

    async def info(self, request: web.Request) -> web.Response:
        """The model's files, with sizes and checksums."""
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                **({"lfs": {"sha256": _sha256(data), "size": len(data), "pointerSize": 1}} if _is_large(name) else {}),
            }
            for name, data in self.files.items()
        ]
        body = {"id": "owner/tiny", "modelId": "owner/tiny", "sha": COMMIT, "siblings": siblings, "tags": []}
        return web.json_response(body)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """One file, or what is left of it."""
        name = request.match_info["name"]
        if name not in self.files:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        data = self.files[name]
        headers = {"ETag": f'"{_sha256(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(data))})
        begin = 0
        if asked := request.headers.get("Range"):
            self.ranges.append(asked)
            begin = int(asked.removeprefix("bytes=").split("-")[0])
        self.downloads.append(name)
        body = (bytes(len(data)) if self.damaged else data)[begin:]
        response = web.StreamResponse(status=206 if begin else 200, headers=headers)
        if begin:
            response.headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        response.content_length = len(body)
        await response.prepare(request)
        if self.cut_at is not None and _is_large(name):
            await response.write(body[: self.cut_at])
            self.cut_at = None
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(body)
        return response


@asynccontextmanager
async def running(hub: Hub) -> AsyncIterator[Hub]:
    """The hub, on loopback."""
    app = web.Application()
    app.router.add_get("/api/models/owner/tiny", hub.info)
    app.router.add_get("/api/models/owner/tiny/revision/{revision}", hub.info)
    app.router.add_route("*", "/owner/tiny/resolve/{revision}/{name:.*}", hub.file)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield hub
    finally:
        await runner.cleanup()


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".gguf", ".bin", ".h5"))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
