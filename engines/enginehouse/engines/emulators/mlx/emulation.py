"""mlx_lm.server, as of 0.32.2.

It is healthy as soon as its port is open; the model is loaded when the first request comes, which waits for it. There
are no metrics and no abort. SIGTERM ends the process at once.
"""

import time
from collections.abc import Iterable
from http import HTTPStatus

from aiohttp import HttpVersion10, hdrs, web

from enginehouse.engines.emulators.core.answers import StreamSender, json_response, send_whole
from enginehouse.engines.emulators.core.bodies import (
    Body,
    BodyError,
    ChatBody,
    CompletionBody,
    GenerationBody,
    parse_body,
)
from enginehouse.engines.emulators.core.emulation import Emulation, get
from enginehouse.engines.emulators.core.generation import Work
from enginehouse.engines.emulators.core.options import Defaults, EmulatorOptions, Shutdown, Startup
from enginehouse.engines.emulators.mlx import checks, shapes, words

_DEFAULT_MODEL = "default_model"
_OUTPUT_DEFAULT = 512  # --max-tokens


class MlxEmulation(Emulation):
    """See the module."""

    kind = "mlx"
    version = "0.32.2"
    server_name = "BaseHTTP/0.6 Python/3.11.7"
    defaults = Defaults(context_tokens_max=8192, places=32, queue_max=65536)
    startup = Startup(listens_while_loading=True, loads_on_request=True, takes_while_loading=True)

    def __init__(self, options: EmulatorOptions) -> None:
        super().__init__(options)
        self.words = words.MlxWords()
        self._started_s = int(time.time())

    @property
    def shutdown(self) -> Shutdown:
        """At once."""
        return Shutdown(drain_s=0.0)

    def app(self) -> web.Application:
        """Its HTTP server."""
        app = super().app()
        app.on_response_prepare.append(_as_http_server)
        return app

    def routes(self) -> Iterable[web.RouteDef]:
        """Generation, models, health."""
        return [
            get("/health", self._health),
            get("/v1/models", self._models),
            web.post("/v1/chat/completions", self._chat),
            web.post("/chat/completions", self._chat),
            web.post("/v1/completions", self._completions),
        ]

    async def _health(self, _request: web.Request) -> web.Response:
        return json_response({"status": "ok"})

    async def _models(self, _request: web.Request) -> web.Response:
        cards = [{"id": name, "object": "model", "created": self._started_s} for name in self.options.models]
        return json_response({"object": "list", "data": cards})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, ChatBody)
        logprobs = shapes.Logprobs(bool(body.logprobs), body.top_logprobs or 0)
        names = ("chatcmpl", "chat.completion")
        return await self._answer(request, body, names, body.said, body.prompt_tokens, logprobs)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, CompletionBody)
        logprobs = shapes.Logprobs(bool(body.logprobs))
        names = ("cmpl", "text_completion")
        return await self._answer(request, body, names, body.prompts[0], body.prompt_lengths[0], logprobs)

    async def _answer(
        self,
        request: web.Request,
        body: GenerationBody,
        names: tuple[str, str],
        echoed: str,
        prompt_tokens: int,
        logprobs: shapes.Logprobs,
    ) -> web.StreamResponse:
        """One choice, whatever `n` says. `names`: the prefix of the id, and the object of a whole answer."""
        prefix, kind = names
        left = self.context_tokens_max - prompt_tokens
        if left < 1:
            raise words.worded(f"The prompt of {prompt_tokens} tokens is too long", HTTPStatus.NOT_FOUND)
        limit = body.limit(left, _OUTPUT_DEFAULT)
        head = shapes.Head(prefix, body.model or _DEFAULT_MODEL)
        work = Work(head.number, prompt_tokens, body.plans([echoed], limit)[:1], limit)
        if body.stream:
            part = "chat.completion.chunk" if kind == "chat.completion" else kind
            stream = shapes.MlxStream(head, part, body, prompt_tokens)
            return await StreamSender(request, stream).send(self.engine, work)
        return await send_whole(
            self.engine, work, lambda admitted: shapes.sized(shapes.whole(head, kind, logprobs, admitted))
        )

    async def _read(self, request: web.Request, kind: type[Body]) -> Body:
        """Refuses what it refuses. Another model would be fetched; where no hub is reached that is a 404."""
        raw = await request.read()
        refusal = checks.refusal(words.parsed(raw))
        if refusal is not None:
            raise words.worded(refusal)
        try:
            body = parse_body(raw, kind)
        except BodyError as error:
            raise words.not_valid(error) from None
        if isinstance(body, GenerationBody) and body.model not in (None, _DEFAULT_MODEL, *self.options.models):
            raise words.worded(words.NO_HUB, HTTPStatus.NOT_FOUND)
        return body


async def _as_http_server(request: web.Request, response: web.StreamResponse) -> None:
    """Makes the answer one of `http.server`: HTTP/1.0, CORS everywhere, a length for whole generations alone."""
    request._version = HttpVersion10  # noqa: SLF001 (aiohttp has no other way to answer so)
    response.force_close()
    response.headers.update(shapes.CORS_HEADERS)
    response.headers.popall(hdrs.CONNECTION, None)
    response.headers[hdrs.CONTENT_TYPE] = response.content_type  # never with a charset
    if not isinstance(response, shapes.SizedResponse):
        response.headers.popall(hdrs.CONTENT_LENGTH, None)
