"""The echo engine: ``python -m enginehouse.engines.echo.server``.

No model, no wait, the same answer every time. It speaks OpenAI's API: chat and completion say back the text that they
get, token by token; usage is exact, also in a stream that is cut. It is what users without a model start with, and what
tests hold, slow down and break.

Routes: /health, /v1/models, /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/rerank, /tokenize, /metrics.
With ``--test-controls`` also POST /gate/close, POST /gate/open, GET /gate[?waiting=N], POST and DELETE /faults.
"""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

from aiohttp import web

from enginehouse.engines.echo import _tokens, _vectors
from enginehouse.engines.echo._answer import Answer
from enginehouse.engines.echo._bodies import (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    GenerationBody,
    RerankBody,
    TokenizeBody,
)
from enginehouse.engines.echo._controls import add_controls
from enginehouse.engines.echo._faults import strike
from enginehouse.engines.echo._generation import Generation, generate
from enginehouse.engines.echo._settings import BODY_BYTES_MAX, EchoSettings, parse_arguments
from enginehouse.engines.echo._shapes import ChatShape, CompletionShape
from enginehouse.engines.echo._work import Worker
from enginehouse.engines.serving import (
    ApiError,
    errors_as_json,
    log_to_stdout,
    metrics_page,
    read_body,
    run_server,
)


class EchoServer:
    """The routes."""

    def __init__(self, settings: EchoSettings) -> None:
        self._settings = settings
        self._worker = Worker(settings)

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[errors_as_json], client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_post("/v1/rerank", self._rerank)
        app.router.add_post("/tokenize", self._tokenize)
        app.cleanup_ctx.append(self._stepping)
        if self._settings.test_controls:
            add_controls(app, self._worker)
        return app

    async def _stepping(self, _app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._worker.keep_stepping(), name="gate steps")
        yield
        task.cancel()
        await asyncio.wait({task})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return metrics_page(self._worker.metrics())

    async def _models(self, _request: web.Request) -> web.Response:
        listed = [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "enginehouse",
                "max_model_len": self._settings.context_tokens_max,
            }
            for name in self._settings.served_models
        ]
        return web.json_response({"object": "list", "data": listed})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, ChatBody)
        model = self._model(body.model)
        prompt_tokens = _tokens.count_chat_tokens([message.text for message in body.messages])
        generations = self._choices(body, [body.echoed], prompt_tokens)
        return await Answer(request, body, ChatShape(model), generations, prompt_tokens).send(self._worker)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, CompletionBody)
        model = self._model(body.model)
        counts = [_tokens.count_tokens(prompt) for prompt in body.prompts]
        generations = self._choices(body, body.prompts, max(counts))
        return await Answer(request, body, CompletionShape(model), generations, sum(counts)).send(self._worker)

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await read_body(request, EmbeddingBody)
        model = self._model(body.model)
        counts = [_tokens.count_tokens(text) for text in body.texts]
        self._check_context(sum(counts), "input")
        async with self._worker.admitted(request, sum(counts)) as fault:
            await strike(fault)
            vectors = [_vectors.embed(text, body.dimensions or self._settings.dimensions) for text in body.texts]
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _vectors.as_base64(vector) if body.encoding_format == "base64" else vector,
            }
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
        return web.json_response({"object": "list", "data": data, "model": model, "usage": usage})

    async def _rerank(self, request: web.Request) -> web.Response:
        body = await read_body(request, RerankBody)
        model = self._model(body.model)
        total = sum(_tokens.count_tokens(body.query) + _tokens.count_tokens(text) for text in body.texts)
        self._check_context(total, "documents")
        async with self._worker.admitted(request, total) as fault:
            await strike(fault)
            scores = [(_vectors.relevance(body.query, text), index, text) for index, text in enumerate(body.texts)]
        best = sorted(scores, key=lambda score: (-score[0], score[1]))[: body.top_n]
        results = [
            {"index": index, "document": {"text": text}, "relevance_score": score} for score, index, text in best
        ]
        usage = {"prompt_tokens": total, "total_tokens": total}
        return web.json_response({"model": model, "results": results, "usage": usage})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await read_body(request, TokenizeBody)
        self._model(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise ApiError("give either 'prompt' or 'messages'", param="prompt")
        texts = [body.prompt] if body.prompt is not None else [message.text for message in body.messages or ()]
        ids = [_tokens.token_id(token) for text in texts for token in _tokens.tokens_of(text)]
        count = len(ids) if body.messages is None else _tokens.count_chat_tokens(texts)
        return web.json_response({"count": count, "max_model_len": self._settings.context_tokens_max, "tokens": ids})

    def _model(self, asked: str | None) -> str:
        """The served name of a request's model; the first one for a request that names none."""
        if asked is None:
            return self._settings.served_models[0]
        if asked not in self._settings.served_models:
            raise ApiError(
                f"The model `{asked}` does not exist.", HTTPStatus.NOT_FOUND, param="model", code="model_not_found"
            )
        return asked

    def _choices(self, body: GenerationBody, prompts: list[str], prompt_tokens: int) -> list[Generation]:
        """What is answered: `n` choices for each prompt, the longest of which has `prompt_tokens`."""
        body.refuse_unsupported()
        choices = (body.n or 1) * len(prompts)
        if choices > self._settings.choices_max:
            raise ApiError(
                f"{choices} choices are asked for; at most {self._settings.choices_max} are given", param="n"
            )
        self._check_context(prompt_tokens + 1, "messages")
        limits = [self._settings.output_tokens_max, self._settings.context_tokens_max - prompt_tokens]
        limits += [limit for limit in (body.max_tokens, body.max_completion_tokens) if limit is not None]
        say = _tokens.over_and_over if body.ignore_eos else _tokens.once
        answers = [generate(say(prompt), min(limits), body.stops) for prompt in prompts]
        return [answer for answer in answers for _ in range(body.n or 1)]

    def _check_context(self, tokens: int, param: str) -> None:
        """Refuses what does not fit."""
        if tokens > self._settings.context_tokens_max:
            raise ApiError(
                f"This model's maximum context length is {self._settings.context_tokens_max} tokens. However, the "
                f"request needs at least {tokens}.",
                param=param,
                code="context_length_exceeded",
            )


def main() -> None:
    """Runs the server until SIGTERM."""
    settings = parse_arguments()
    log_to_stdout()
    run_server(EchoServer(settings).app(), settings.host, settings.port)


if __name__ == "__main__":
    main()
