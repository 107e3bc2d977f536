"""TGI's router, as of 3.3.6.

The launcher starts the router once the model's shards are there, so the port is closed while the model loads. SIGTERM
closes the port; what is at work goes on, at most `--graceful-termination-timeout` (90 s by default).
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Middleware

from enginehouse.engines.echo._tokens import count_chat_tokens
from enginehouse.engines.emulators.core.answers import (
    DONE,
    HttpError,
    Json,
    StreamSender,
    event,
    json_response,
    send_whole,
)
from enginehouse.engines.emulators.core.auth import guard
from enginehouse.engines.emulators.core.bodies import Body, BodyError, parse_body
from enginehouse.engines.emulators.core.chatml import marked_tokens
from enginehouse.engines.emulators.core.emulation import Emulation, get, page
from enginehouse.engines.emulators.core.engine import Admitted, Phase
from enginehouse.engines.emulators.core.generation import Work
from enginehouse.engines.emulators.core.options import Defaults, EmulatorOptions, Shutdown
from enginehouse.engines.emulators.core.plan import plan_echo, token_id
from enginehouse.engines.emulators.tgi import bodies, metrics, shapes, words

_VERSION = "3.3.6-dev0"
_BATCH_MAX = 4  # --max-client-batch-size
_SEED = 42
_COMPUTE = {"x-compute-type": "gpu+optimized"}
_GUARDED = frozenset(
    {"/", "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions", "/invocations", "/tokenize"}
)


class TgiEmulation(Emulation):
    """See the module."""

    kind = "tgi"
    version = _VERSION
    defaults = Defaults(context_tokens_max=4096, places=32, queue_max=96)  # --max-concurrent-requests 128

    def __init__(self, options: EmulatorOptions) -> None:
        super().__init__(options)
        self.words = words.TgiWords()
        self._head = shapes.Head(self.model, f"{_VERSION}-native")
        queue_max = self.defaults.queue_max if options.queue_max is None else options.queue_max
        self._concurrent_max = self.engine.batch.places + queue_max

    @property
    def shutdown(self) -> Shutdown:
        """Drains, for so long."""
        return Shutdown(drain_s=90.0 if self.options.drain_s is None else self.options.drain_s)

    @property
    def middlewares(self) -> Iterable[Middleware]:
        """The key guards generation, and /tokenize."""
        return guard(
            self.options.api_key,
            lambda request: request.method == "POST" and request.path in _GUARDED,
            HttpError(HTTPStatus.UNAUTHORIZED),
        )

    def routes(self) -> Iterable[web.RouteDef]:
        """Generation, tokens, state."""
        return [
            web.post("/", self._compat),
            web.post("/generate", self._generate),
            web.post("/generate_stream", self._generate_stream),
            web.post("/invocations", self._invocations),
            web.post("/v1/chat/completions", self._chat),
            web.post("/v1/completions", self._completions),
            web.post("/tokenize", self._tokenize),
            web.post("/chat_tokenize", self._chat_tokenize),
            get("/", self._health),
            get("/health", self._health),
            get("/ping", self._health),
            get("/info", self._info),
            get("/metrics", self._metrics),
            get("/v1/models", self._models),
        ]

    async def _health(self, _request: web.Request) -> web.Response:
        if self.engine.phase is Phase.LOADING:
            raise words.TgiWords().unhealthy()
        return web.Response()

    async def _info(self, _request: web.Request) -> web.Response:
        return json_response(
            {
                "model_id": self.model,
                "model_sha": None,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": self._concurrent_max,
                "max_best_of": bodies.BEST_OF_MAX,
                "max_stop_sequences": bodies.STOPS_MAX,
                "max_input_tokens": self._input_tokens_max,
                "max_total_tokens": self.context_tokens_max,
                "validation_workers": 2,
                "max_client_batch_size": _BATCH_MAX,
                "router": "text-generation-router",
                "version": _VERSION,
                "sha": None,
                "docker_label": None,
            }
        )

    async def _metrics(self, _request: web.Request) -> web.Response:
        return page(metrics.families(self), "text/plain; charset=utf-8")

    async def _models(self, _request: web.Request) -> web.Response:
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": self.model}
        return json_response({"object": "list", "data": [model]})

    async def _compat(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request, bodies.GenerateBody)
        if body.stream:
            return await self._send_stream(request, body)
        return await self._send_whole(body, lambda answer: [answer])

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        return await self._send_whole(await self._read(request, bodies.GenerateBody), lambda answer: answer)

    async def _generate_stream(self, request: web.Request) -> web.StreamResponse:
        return await self._send_stream(request, await self._read(request, bodies.GenerateBody))

    async def _invocations(self, request: web.Request) -> web.StreamResponse:
        """SageMaker's door: whatever of the three forms the body has."""
        raw = await request.read()
        for kind, answer in (
            (bodies.GenerateBody, self._compat),
            (bodies.ChatBody, self._chat),
            (bodies.CompletionBody, self._completions),
        ):
            try:
                parse_body(raw, kind)
            except BodyError:
                continue
            return await answer(request)
        message = "Failed to deserialize the JSON body into the target type: data did not match any variant"
        raise HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, message)

    async def _send_whole(self, body: bodies.GenerateBody, wrap: Callable[[Json], object]) -> web.StreamResponse:
        arrived_s = time.monotonic()
        asked, work = self._work(body.inputs, body.parameters)
        return await send_whole(
            self.engine,
            work,
            lambda admitted: json_response(
                wrap(shapes.generate_response(asked, admitted)),
                headers=self._headers(asked.inputs, asked.input_tokens, admitted, arrived_s),
            ),
        )

    async def _send_stream(self, request: web.Request, body: bodies.GenerateBody) -> web.StreamResponse:
        """Whatever is wrong with the body is an event, under status 200."""
        headers = self._stream_headers(body.inputs)
        try:
            if body.parameters.sequences != 1:
                raise words.not_valid("`best_of` != 1 is not supported when streaming tokens")
            if body.parameters.decoder_input_details:
                raise words.not_valid("`decoder_input_details` == true is not supported when streaming tokens")
            asked, work = self._work(body.inputs, body.parameters)
        except HttpError as error:
            return await _refused_in_stream(request, shapes.TgiStream.base_headers(headers), event(error.payload))
        return await StreamSender(request, shapes.GenerateStream(headers, asked)).send(self.engine, work)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        arrived_s = time.monotonic()
        body = await self._read(request, bodies.ChatBody)
        if body.tools and body.tool_choice not in (None, "auto", "none"):
            message = "Tool error: the emulator calls no tools"
            raise HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, words.error_body(message, "tool_error"))
        headers = self._stream_headers(body.templated)
        input_tokens = count_chat_tokens([message.text for message in body.messages])
        head = replace(self._head, created=int(time.time()))
        try:
            asked, work = self._work(body.templated, body.parameters(), body.echoed, input_tokens)
        except HttpError as error:
            if not body.stream:
                raise
            frame = event({"error": {"message": _message(error), "http_status_code": error.status}})
            return await _refused_in_stream(request, shapes.TgiStream.base_headers(headers), frame + DONE)
        if body.stream:
            stream = shapes.ChatStream(headers, head, asked, has_logprobs=bool(body.logprobs), has_usage=body.has_usage)
            return await StreamSender(request, stream).send(self.engine, work)
        return await send_whole(
            self.engine,
            work,
            lambda admitted: json_response(
                shapes.whole_chat(head, asked, bool(body.logprobs), admitted),
                headers=self._headers(asked.inputs, asked.input_tokens, admitted, arrived_s),
            ),
        )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        arrived_s = time.monotonic()
        body = await self._read(request, bodies.CompletionBody)
        self._check_completion(body)
        headers = self._stream_headers("".join(body.prompts))
        head = replace(self._head, created=int(time.time()))
        try:
            works = [self._work(prompt, body.parameters()) for prompt in body.prompts]
        except HttpError as error:
            if not body.stream:
                raise
            frame = event(error.payload)
            return await _refused_in_stream(request, shapes.TgiStream.base_headers(headers), frame + DONE)
        lengths = [asked.input_tokens for asked, _ in works]
        plans = tuple(plan for _, work in works for plan in work.plans)
        together = Work("", sum(lengths), plans, works[0][1].tokens_max)
        if body.stream:
            stream = shapes.CompletionStream(headers, head, lengths)
            return await StreamSender(request, stream).send(self.engine, together)
        return await send_whole(
            self.engine,
            together,
            lambda admitted: json_response(
                shapes.whole_completion(head, sum(lengths), admitted),
                headers=self._headers("".join(body.prompts), sum(lengths), admitted, arrived_s),
            ),
        )

    def _check_completion(self, body: bodies.CompletionBody) -> None:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        if body.suffix is not None:
            message = "Suffix is not supported and can be achieved by preprocessing the prompt."
            raise HttpError(status, words.error_body(message, "suffix not supported"))
        if len(body.prompts) > _BATCH_MAX:
            message = f"Number of prompts exceeds the maximum allowed batch size of {_BATCH_MAX}"
            raise HttpError(status, words.error_body(message, "batch size exceeded"))

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await self._read(request, bodies.GenerateBody)
        return json_response(_simple_tokens(body.inputs))

    async def _chat_tokenize(self, request: web.Request) -> web.Response:
        body = await self._read(request, bodies.ChatBody)
        text = body.templated
        return json_response({"tokenize_response": _simple_tokens(text), "templated_text": text})

    @property
    def _input_tokens_max(self) -> int:
        return self.context_tokens_max - 1

    async def _read(self, request: web.Request, kind: type[Body]) -> Body:
        if request.content_type != "application/json":
            message = "Expected request with `Content-Type: application/json`"
            raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
        try:
            return parse_body(await request.read(), kind)
        except BodyError as error:
            raise words.not_readable(error) from None

    def _work(
        self, inputs: str, parameters: bodies.Parameters, echoed: str | None = None, input_tokens: int | None = None
    ) -> tuple[shapes.Asked, Work]:
        """What is generated for `inputs`; a chat says something else back than its templated text.

        Raises:
            HttpError: 422, as TGI's validation.
        """
        bodies.check(parameters, inputs, self._input_tokens_max)
        counted = len(marked_tokens(inputs)) if input_tokens is None else input_tokens
        length = counted if parameters.truncate is None else min(counted, parameters.truncate)
        limit = bodies.tokens_max(parameters, length, self._input_tokens_max, self.context_tokens_max)
        answer = bodies.constrained_answer(parameters.grammar) or (inputs if echoed is None else echoed)
        plan = plan_echo(answer, limit, parameters.stop)
        asked = shapes.Asked(
            inputs,
            length,
            tuple(marked_tokens(inputs)) if parameters.decoder_input_details else (),
            parameters.details or parameters.decoder_input_details,
            parameters.seed if parameters.seed is not None or not parameters.samples else _SEED,
            parameters.top_n_tokens or 0,
            inputs if parameters.return_full_text else "",
        )
        sequences = parameters.sequences
        return asked, Work("", length * sequences, (plan,) * sequences, limit)

    def _stream_headers(self, inputs: str) -> dict[str, str]:
        return {**_COMPUTE, "x-compute-characters": str(len(inputs)), "x-accel-buffering": "no"}

    def _headers(self, inputs: str, input_tokens: int, admitted: Admitted, arrived_s: float) -> dict[str, str]:
        times, tokens = admitted.times, admitted.generation.generated_tokens
        return {
            **_COMPUTE,
            "x-compute-time": repr(time.monotonic() - arrived_s),
            "x-compute-characters": str(len(inputs)),
            "x-total-time": _milliseconds(time.monotonic() - arrived_s),
            "x-validation-time": _milliseconds(time.monotonic() - arrived_s - times.total_s),
            "x-queue-time": _milliseconds(times.queue_s),
            "x-inference-time": _milliseconds(times.inference_s),
            "x-time-per-token": _milliseconds(times.inference_s / max(1, tokens)),
            "x-prompt-tokens": str(input_tokens),
            "x-generated-tokens": str(tokens),
        }


def _milliseconds(seconds: float) -> str:
    return str(max(0, int(seconds * 1000)))


def _message(error: HttpError) -> object:
    return error.payload["error"] if isinstance(error.payload, dict) else error.payload


def _simple_tokens(text: str) -> list[Json]:
    tokens: list[Json] = []
    start = 0
    for token in marked_tokens(text):
        tokens.append({"id": token_id(token), "text": token, "start": start, "stop": start + len(token)})
        start += len(token)
    return tokens


async def _refused_in_stream(request: web.Request, headers: dict[str, str], frames: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(frames)
    return response
