"""TensorRT-LLM's gRPC service: the emulator through the published protos, and what it does of its own."""

from pathlib import Path
from typing import Any

import pytest

from enginehouse.adapters.tensorrt_llm_grpc import TensorRtLlmGrpcEngine
from enginehouse.contract import Reason, RequestError
from enginehouse.v1 import inference_pb2
from tests.integration.adapters.token_engine_suite import TokenEngineSuite
from tests.integration.adapters.token_engines import ScriptedEngine, generated, ids_of, prompt

SCHEMA = '{"type": "object"}'


class TestTensorRtLlmGrpc(TokenEngineSuite):
    """See the suite."""

    kind = "tensorrt-llm"
    client = TensorRtLlmGrpcEngine
    name = "TensorRT-LLM"

    def scripted(self, **members: Any) -> ScriptedEngine:  # noqa: ANN401
        return ScriptedEngine("TrtllmService", "trtllm_service_pb2", **members)

    def chunk(self, engine: ScriptedEngine, token_ids: list[int], generated_before: int = 0) -> object:
        count = generated_before + len(token_ids)
        return engine.pb.GenerateResponse(
            chunk={"token_ids": token_ids, "prompt_tokens": 2, "completion_tokens": count}
        )

    def end(self, engine: ScriptedEngine, token_ids: list[int], reason: str, stop: str = "") -> object:
        complete = engine.pb.GenerateComplete(
            output_token_ids=token_ids, finish_reason=reason, prompt_tokens=2, completion_tokens=len(token_ids)
        )
        if stop:
            complete.matched_stop_str = stop
        return engine.pb.GenerateResponse(complete=complete)

    def model_info(self, engine: ScriptedEngine, folder: Path) -> object:
        return engine.pb.GetModelInfoResponse(model_id=str(folder))

    async def written(self, request: inference_pb2.GenerateRequest) -> Any:  # noqa: ANN401
        """What the engine is asked."""
        engine = self.scripted()
        engine.answers = lambda _: [self.end(engine, ids_of("ok"), "stop")]
        async with self.asking(engine) as client:
            await generated(client, request)
        return engine.asked[0][0]

    async def test_what_is_left_out_is_written_as_what_it_means(self) -> None:
        asked = await self.written(prompt("Hi"))
        config = asked.sampling_config
        assert list(asked.tokenized.input_token_ids) == ids_of("Hi")
        assert (asked.max_tokens, asked.streaming, config.num_return_sequences, config.beam_width) == (512, True, 1, 1)
        assert (config.top_p, config.repetition_penalty, config.top_k) == (1.0, 1.0, 0)
        assert not config.HasField("temperature")
        assert not asked.HasField("guided_decoding")
        assert not asked.tokenized.original_text

    async def test_everything_that_was_asked_for_is_written(self) -> None:
        request = prompt(
            "Hi",
            temperature=0.0,
            top_p=0.5,
            top_k=5,
            seed=7,
            stop=["END"],
            presence_penalty=0.25,
            frequency_penalty=-0.25,
            top_logprobs=2,
        )
        request.response_format.json_schema.schema = SCHEMA
        asked = await self.written(request)
        config = asked.sampling_config
        assert (config.temperature, config.top_p, config.top_k, config.seed) == (0.0, 0.5, 5, 7)
        assert config.HasField("temperature")
        assert (config.presence_penalty, config.frequency_penalty, list(asked.stop)) == (0.25, -0.25, ["END"])
        assert asked.output_config.logprobs == 2
        guide = asked.guided_decoding
        assert (guide.guide_type, guide.guide) == (guide.GUIDE_TYPE_JSON_SCHEMA, SCHEMA)

    async def test_any_json_is_asked_for_with_a_guide_that_the_engine_does_not_pass_over(self) -> None:
        request = prompt("Hi")
        request.response_format.json_object = True
        guide = (await self.written(request)).guided_decoding
        assert guide.guide_type == guide.GUIDE_TYPE_JSON
        assert guide.guide

    async def test_tokens_that_come_with_the_end_alone_are_told(self) -> None:
        engine = self.scripted()
        engine.answers = lambda _: [self.chunk(engine, ids_of("ab")), self.end(engine, ids_of("abcd"), "length")]
        async with self.asking(engine) as client:
            whole = await generated(client, prompt("Hi"))
        assert (whole.texts, whole.usage.output_tokens) == (["abcd"], 4)

    async def test_alternatives_come_with_their_tokens(self) -> None:
        engine = self.scripted()
        top = [{"token_id": ids_of("b")[0], "logprob": -2.0}]
        logprobs = [{"token_id": ids_of("a")[0], "logprob": -1.0, "top_logprobs": top}]
        chunk = {"token_ids": ids_of("a"), "prompt_tokens": 2, "completion_tokens": 1, "logprobs": logprobs}
        engine.answers = lambda _: [
            engine.pb.GenerateResponse(chunk=chunk),
            self.end(engine, ids_of("a"), "stop"),
        ]
        async with self.asking(engine) as client:
            whole = await generated(client, prompt("Hi", top_logprobs=1))
        (one,) = whole.answer.choices[0].logprobs
        assert (one.token, one.logprob, [(other.token, other.logprob) for other in one.top]) == ("a", -1, [("b", -2)])

    async def test_embedding_is_refused(self) -> None:
        client = TensorRtLlmGrpcEngine("127.0.0.1:1")
        with pytest.raises(RequestError, match="cannot embed") as raised:
            await client.embed(inference_pb2.EmbedRequest(model="m", input=["a"]), served_model="s")
        assert raised.value.reason is Reason.CAPABILITY_NOT_FOUND
        await client.aclose()
