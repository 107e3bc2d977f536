"""TensorRT-LLM's gRPC server: `trtllm-serve --grpc`, package trtllm (smg-grpc-proto 0.4)."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc

from enginehouse.engines.emulators.core import byte_tokenizer
from enginehouse.engines.emulators.core.emulation import GrpcFace
from enginehouse.engines.emulators.core.errors import BrokenBy, Overloaded, Unavailable
from enginehouse.engines.emulators.core.generation import Step, Work
from enginehouse.engines.emulators.core.plan import Finish, FinishKind, Token, plan_ids
from enginehouse.engines.emulators.core.rpc import Context, Health, Proto, add_service, load_protos, nothing, statuses

if TYPE_CHECKING:
    from enginehouse.engines.emulators.tensorrt_llm.emulation import TensorRtLlmEmulation

_CODES = {Unavailable: grpc.StatusCode.UNAVAILABLE, Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED}
_REASONS = {FinishKind.LENGTH: "length", FinishKind.EOS: "stop", FinishKind.STOP_SEQUENCE: "stop_word"}


class TensorRtLlmGrpcFace(GrpcFace):
    """TrtllmService, and grpc.health.v1. Embed is not implemented, as in the real one."""

    def __init__(self, emulation: "TensorRtLlmEmulation") -> None:
        self._emulation = emulation
        self._engine = emulation.engine
        self._pb: Proto = load_protos("trtllm_service_pb2")
        self._common: Proto = load_protos("common_pb2")
        self._archive = byte_tokenizer.archive(emulation.context_tokens_max)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the services."""
        unary = {
            "HealthCheck": self._health_check,
            "Abort": self._abort,
            "GetModelInfo": self._model_info,
            "GetServerInfo": self._server_info,
        }
        streaming = {"Generate": self._generate, "GetTokenizer": self._tokenizer}
        add_service(server, self._pb, "TrtllmService", unary, streaming)
        Health(self._engine, "trtllm.TrtllmService").add_to(server)

    async def _generate(self, request: Proto, context: Context) -> AsyncIterator[Proto]:
        work = await self._work(request, context)
        response = self._pb.GenerateResponse
        async with statuses(context, _CODES), self._engine.admitted(work, nothing) as admitted:
            async for step in admitted.steps():
                if step.is_garbage:
                    yield response()
                    continue
                if request.streaming:
                    count = admitted.generation.generated[step.choice]
                    chunk = self._chunk(request, step, work.prompt_tokens, count)
                    yield response(request_id=request.request_id, chunk=chunk)
            for index, plan in enumerate(work.plans):
                complete = self._complete(request, index, plan.tokens, plan.finish, work.prompt_tokens)
                yield response(request_id=request.request_id, complete=complete)

    async def _work(self, request: Proto, context: Context) -> Work:
        """What is asked for; what TensorRT-LLM refuses is INVALID_ARGUMENT."""
        ids = list(request.tokenized.input_token_ids)
        left = self._emulation.context_tokens_max - len(ids)
        refusal = None
        if not ids:
            refusal = "GenerateRequest requires tokenized input"
        elif request.max_tokens < 1:
            refusal = f"max_tokens must be at least 1, got {request.max_tokens}"
        elif left < request.max_tokens:
            refusal = (
                f"The sum of prompt length ({len(ids)}) and max_tokens ({request.max_tokens}) should not exceed "
                f"max_seq_len ({self._emulation.context_tokens_max})"
            )
        if refusal is not None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)
        plan = plan_ids(ids, request.max_tokens, list(request.stop), ends=not request.ignore_eos)
        sequences = request.sampling_config.num_return_sequences or 1
        return Work(request.request_id, len(ids), (plan,) * sequences, request.max_tokens)

    def _chunk(self, request: Proto, step: Step, prompt_tokens: int, count: int) -> Proto:
        """One token; the counts are of the choice so far."""
        return self._pb.GenerateStreamChunk(
            token_ids=[step.token.id],
            sequence_index=step.choice,
            prompt_tokens=prompt_tokens,
            completion_tokens=count,
            logprobs=self._logprobs(request, (step.token,)),
        )

    def _complete(
        self, request: Proto, index: int, tokens: tuple[Token, ...], finish: Finish, prompt_tokens: int
    ) -> Proto:
        """The end of a choice, with all of its tokens."""
        complete = self._pb.GenerateComplete(
            output_token_ids=[token.id for token in tokens],
            sequence_index=index,
            finish_reason=_REASONS[finish.kind],
            prompt_tokens=prompt_tokens,
            completion_tokens=len(tokens),
            logprobs=self._logprobs(request, tokens),
        )
        if finish.stop is not None:
            complete.matched_stop_str = finish.stop
        return complete

    def _logprobs(self, request: Proto, tokens: tuple[Token, ...]) -> list[Proto]:
        if not request.output_config.HasField("logprobs"):
            return []
        made = [self._pb.TokenLogprob(token_id=token.id, logprob=token.logprob) for token in tokens]
        if request.output_config.logprobs:  # the only alternative is the token itself
            for one in made:
                one.top_logprobs.add(token_id=one.token_id, logprob=one.logprob)
        return made

    async def _health_check(self, _request: Proto, _context: Context) -> Proto:
        return self._pb.HealthCheckResponse(status="OK")

    async def _abort(self, request: Proto, _context: Context) -> Proto:
        """One id, the whole of it."""
        aborted = self._engine.abort(BrokenBy.ABORT, request.request_id.__eq__)
        message = "Request aborted" if aborted else f"Request {request.request_id} not found"
        return self._pb.AbortResponse(success=bool(aborted), message=message)

    async def _model_info(self, _request: Proto, _context: Context) -> Proto:
        return self._pb.GetModelInfoResponse(
            model_id=self._emulation.model,
            max_input_len=self._emulation.context_tokens_max - 1,
            max_seq_len=self._emulation.context_tokens_max,
            max_batch_size=self._engine.batch.places,
            vocab_size=byte_tokenizer.VOCABULARY_SIZE,
        )

    async def _server_info(self, _request: Proto, _context: Context) -> Proto:
        return self._pb.GetServerInfoResponse(
            version=self._emulation.version,
            backend="pytorch",
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            context_parallel_size=1,
            world_size=1,
        )

    async def _tokenizer(self, _request: Proto, _context: Context) -> AsyncIterator[Proto]:
        for data, digest in byte_tokenizer.chunks(self._archive):
            yield self._common.GetTokenizerChunk(data=data, sha256=digest)
