"""vLLM's gRPC server: `vllm serve --grpc`, package vllm.grpc.engine (smg-grpc-servicer 0.14, smg-grpc-proto 0.4).

Ran against the real one: it serves gRPC alone, without a page of metrics; what is aborted ends without an error status,
by its finish reason alone; zeros in `top_p`, `repetition_penalty` and `n` are the defaults.
"""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc

from enginehouse.engines.emulators.core import byte_tokenizer
from enginehouse.engines.emulators.core.emulation import GrpcFace
from enginehouse.engines.emulators.core.errors import BrokenBy, GenerationBroken, Overloaded, Unavailable
from enginehouse.engines.emulators.core.generation import Step, Work
from enginehouse.engines.emulators.core.plan import EOS_ID, Finish, FinishKind, Token, plan_echo, plan_ids
from enginehouse.engines.emulators.core.rpc import Context, Health, Proto, add_service, load_protos, nothing, statuses

if TYPE_CHECKING:
    from enginehouse.engines.emulators.vllm.emulation import VllmEmulation

_SERVICE = "vllm.grpc.engine.VllmEngine"
_CODES = {Unavailable: grpc.StatusCode.UNAVAILABLE, Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED}
_REASONS = {
    FinishKind.LENGTH: "length",
    FinishKind.EOS: "stop",
    FinishKind.STOP_SEQUENCE: "stop",
    FinishKind.ABORT: "abort",
}
_GREEDY_BELOW = 1e-5


class VllmGrpcFace(GrpcFace):
    """VllmEngine, and grpc.health.v1."""

    def __init__(self, emulation: "VllmEmulation") -> None:
        self._emulation = emulation
        self._engine = emulation.engine
        self._pb: Proto = load_protos("vllm_engine_pb2")
        self._common: Proto = load_protos("common_pb2")
        self._archive = byte_tokenizer.archive(emulation.context_tokens_max)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the services."""
        unary = {
            "Embed": self._embed,
            "HealthCheck": self._health_check,
            "Abort": self._abort,
            "GetModelInfo": self._model_info,
            "GetServerInfo": self._server_info,
            "GetLoads": self._loads,
        }
        streaming = {"Generate": self._generate, "GetTokenizer": self._tokenizer}
        add_service(server, self._pb, "VllmEngine", unary, streaming)
        Health(self._engine, _SERVICE).add_to(server)

    async def _generate(self, request: Proto, context: Context) -> AsyncIterator[Proto]:
        work = await self._work(request, context)
        generated = [0] * len(work.plans)
        try:
            async with (
                statuses(context, _CODES, forgiven=(BrokenBy.ABORT,)),
                self._engine.admitted(work, nothing) as admitted,
            ):
                async for step in admitted.steps():
                    generated[step.choice] += 1
                    if step.is_garbage:
                        yield self._pb.GenerateResponse()
                        continue
                    if request.stream:
                        yield self._chunk(request, step, work.prompt_tokens)
                    if request.stream and step.finish is not None:
                        yield self._complete(request, step.choice, (step.token,), step.finish, work.prompt_tokens)
        except GenerationBroken:
            for message in self._aborted(request, work, generated):
                yield message
            return
        if not request.stream:
            for index, plan in enumerate(work.plans):
                yield self._complete(request, index, plan.tokens, plan.finish, work.prompt_tokens)

    def _aborted(self, request: Proto, work: Work, generated: list[int]) -> Iterator[Proto]:
        """The end of what was aborted: in a stream an empty chunk and an empty end of each choice that was at work."""
        for index, plan in enumerate(plan.cut(count) for plan, count in zip(work.plans, generated, strict=True)):
            if not request.stream:
                yield self._complete(request, index, plan.tokens, plan.finish, work.prompt_tokens)
            elif plan.finish.kind is FinishKind.ABORT:
                empty = self._pb.GenerateStreamChunk(prompt_tokens=work.prompt_tokens, index=index)
                yield self._pb.GenerateResponse(chunk=empty)
                yield self._complete(request, index, (), plan.finish, work.prompt_tokens)

    async def _work(self, request: Proto, context: Context) -> Work:
        """What is asked for; what vLLM refuses is INVALID_ARGUMENT."""
        params = request.sampling_params
        source = request.WhichOneof("input")
        ids = list(request.tokenized.input_ids)
        prompt_tokens = len(ids) if source == "tokenized" else len(self._emulation.vocabulary.encode(request.text))
        left = self._emulation.context_tokens_max - prompt_tokens
        asked = params.max_tokens if params.HasField("max_tokens") else left
        refusal = _refusal(params, source, prompt_tokens, left, asked)
        if refusal is not None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)
        limit, stops, ends = min(asked, left), list(params.stop), not params.ignore_eos
        plan = (
            plan_ids(ids, limit, stops, ends=ends)
            if source == "tokenized"
            else plan_echo(request.text, limit, stops, ends=ends)
        )
        return Work(request.request_id, prompt_tokens, (plan,) * (params.n or 1), limit)

    def _chunk(self, request: Proto, step: Step, prompt_tokens: int) -> Proto:
        """One token. The counts are of this chunk, not of the whole."""
        chunk = self._pb.GenerateStreamChunk(
            token_ids=[step.token.id],
            prompt_tokens=prompt_tokens,
            completion_tokens=1,
            output_logprobs=self._logprobs(request, (step.token,)),
            index=step.choice,
        )
        return self._pb.GenerateResponse(chunk=chunk)

    def _complete(
        self,
        request: Proto,
        index: int,
        tokens: tuple[Token, ...],
        finish: Finish,
        prompt_tokens: int,
    ) -> Proto:
        """The end of a choice: all tokens, or in a stream the last one again."""
        complete = self._pb.GenerateComplete(
            output_ids=[token.id for token in tokens],
            finish_reason=_REASONS[finish.kind],
            prompt_tokens=prompt_tokens,
            completion_tokens=len(tokens),
            output_logprobs=self._logprobs(request, tokens),
            index=index,
        )
        if finish.stop is not None:
            complete.matched_stop_str = finish.stop
        return self._pb.GenerateResponse(complete=complete)

    def _logprobs(self, request: Proto, tokens: tuple[Token, ...]) -> Proto:
        if not request.sampling_params.HasField("logprobs"):
            return None
        wanted = tokens if request.sampling_params.logprobs > 0 else ()
        tops = [self._pb.TopLogProbs(values=[token.logprob], token_ids=[token.id]) for token in wanted]
        return self._pb.OutputLogProbs(
            token_logprobs=[token.logprob for token in tokens],
            token_ids=[token.id for token in tokens],
            top_logprobs=tops,
        )

    async def _embed(self, _request: Proto, context: Context) -> Proto:
        message = "This model does not support pooling"
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)

    async def _health_check(self, _request: Proto, _context: Context) -> Proto:
        return self._pb.HealthCheckResponse(healthy=True, message="Health")

    async def _abort(self, request: Proto, _context: Context) -> Proto:
        self._engine.abort(BrokenBy.ABORT, set(request.request_ids).__contains__)
        return self._pb.AbortResponse()

    async def _model_info(self, _request: Proto, _context: Context) -> Proto:
        return self._pb.GetModelInfoResponse(
            model_path=self._emulation.model,
            is_generation=True,
            max_context_length=self._emulation.context_tokens_max,
            vocab_size=byte_tokenizer.VOCABULARY_SIZE,
            served_model_name=self._emulation.model,
            tokenizer_path=self._emulation.model,
            model_type="llama",
            architectures=["LlamaForCausalLM"],
            eos_token_ids=[EOS_ID],
            pad_token_id=byte_tokenizer.PAD_ID,
            bos_token_id=byte_tokenizer.BOS_ID,
            max_req_input_len=self._emulation.context_tokens_max,
        )

    async def _server_info(self, _request: Proto, _context: Context) -> Proto:
        return self._pb.GetServerInfoResponse(
            data_parallel_size=1,
            kv_cache_dtype="auto",
            block_size=128,
            model_dtype="torch.bfloat16",
            max_num_seqs=self._engine.batch.places,
            constrained_decoding_start="first_token",
        )

    async def _loads(self, _request: Proto, _context: Context) -> Proto:
        batch = self._engine.batch
        capacity = batch.places * self._emulation.context_tokens_max
        load = self._pb.SchedulerLoad(
            num_running_reqs=batch.running,
            num_waiting_reqs=batch.waiting,
            num_total_reqs=batch.running + batch.waiting,
            num_used_tokens=self._engine.tokens_in_use,
            max_total_num_tokens=capacity,
            token_usage=min(1.0, self._engine.tokens_in_use / capacity),
            max_running_requests=batch.places,
            gen_throughput=batch.running / batch.step_s() if batch.running and batch.step_s() else 0.0,
        )
        now = datetime.now(UTC).isoformat()
        return self._pb.GetLoadsResponse(timestamp=now, version=self._emulation.version, dp_rank_count=1, loads=[load])

    async def _tokenizer(self, _request: Proto, _context: Context) -> AsyncIterator[Proto]:
        for data, digest in byte_tokenizer.chunks(self._archive):
            yield self._common.GetTokenizerChunk(data=data, sha256=digest)


def _refusal(params: Proto, source: str | None, prompt_tokens: int, left: int, asked: int) -> str | None:
    """What vLLM says against a request, if it does."""
    if source is None:
        return "The decoder prompt cannot be empty"
    if left < 1:
        return (
            f"The decoder prompt (length {prompt_tokens}) is longer than the maximum model length of "
            f"{prompt_tokens + left}. Make sure that `max_model_len` is no smaller than the number of text tokens."
        )
    temperature = params.temperature if params.HasField("temperature") else 1.0
    for name, value, is_good, rule in (
        ("max_tokens", asked, asked >= 1, "be at least 1"),
        ("top_p", params.top_p, 0 <= params.top_p <= 1, "be in (0, 1]"),
        ("temperature", temperature, temperature >= 0, "be non-negative"),
    ):
        if not is_good:
            return f"{name} must {rule}, got {value}. (parameter={name}, value={value})"
    if params.n > 1 and temperature < _GREEDY_BELOW:
        return f"n must be 1 when using greedy sampling, got {params.n}."
    return None
