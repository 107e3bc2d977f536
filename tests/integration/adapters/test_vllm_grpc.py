"""vLLM's gRPC service: the emulator through the published protos, and what it does of its own."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from enginehouse.adapters.vllm_grpc import VllmGrpcEngine
from enginehouse.contract import EngineError, Reason, RequestError
from enginehouse.v1 import common_pb2, inference_pb2
from tests.integration.adapters.token_engine_suite import TokenEngineSuite
from tests.integration.adapters.token_engines import ScriptedEngine, generated, ids_of, prompt

SCHEMA = '{"type": "object"}'


class TestVllmGrpc(TokenEngineSuite):
    """See the suite."""

    kind = "vllm"
    client = VllmGrpcEngine
    name = "vLLM"

    def scripted(self, **members: Any) -> ScriptedEngine:  # noqa: ANN401
        return ScriptedEngine("VllmEngine", "vllm_engine_pb2", **members)

    def chunk(self, engine: ScriptedEngine, token_ids: list[int], generated_before: int = 0) -> object:
        chunk = {"token_ids": token_ids, "prompt_tokens": 2, "completion_tokens": len(token_ids)}
        return engine.pb.GenerateResponse(chunk=chunk)

    def end(self, engine: ScriptedEngine, token_ids: list[int], reason: str, stop: str = "") -> object:
        complete = engine.pb.GenerateComplete(
            output_ids=token_ids, finish_reason=reason, prompt_tokens=2, completion_tokens=len(token_ids)
        )
        if stop:
            complete.matched_stop_str = stop
        return engine.pb.GenerateResponse(complete=complete)

    def model_info(self, engine: ScriptedEngine, folder: Path) -> object:
        return engine.pb.GetModelInfoResponse(tokenizer_path=str(folder))

    async def written(self, request: inference_pb2.GenerateRequest, **info: Any) -> Any:  # noqa: ANN401
        """What the engine is asked."""
        engine = self.scripted()
        engine.unary["GetModelInfo"] = engine.pb.GetModelInfoResponse(**info)
        engine.answers = lambda _: [self.end(engine, ids_of("ok"), "stop")]
        async with self.asking(engine) as client:
            await generated(client, request)
        return engine.asked[0][0]

    async def test_what_is_left_out_is_written_as_what_it_means(self) -> None:
        asked = await self.written(prompt("Hi"))
        params = asked.sampling_params
        assert list(asked.tokenized.input_ids) == ids_of("Hi")
        assert (params.top_p, params.repetition_penalty, params.n, params.max_tokens) == (1.0, 1.0, 1, 512)
        assert asked.stream
        assert not params.HasField("temperature")
        assert not params.HasField("seed")
        assert params.WhichOneof("constraint") is None
        assert not asked.tokenized.original_text

    async def test_everything_that_was_asked_for_is_written(self) -> None:
        request = prompt(
            "Hi",
            temperature=0.0,
            top_p=0.5,
            top_k=-1,
            seed=-7,
            stop=["END"],
            presence_penalty=0.25,
            frequency_penalty=-0.25,
            choices=1,
            top_logprobs=0,
        )
        request.response_format.json_schema.schema = SCHEMA
        params = (await self.written(request)).sampling_params
        assert (params.temperature, params.top_p, params.top_k, params.seed) == (0.0, 0.5, 0, -7)
        assert params.HasField("temperature")
        assert (params.presence_penalty, params.frequency_penalty, list(params.stop)) == (0.25, -0.25, ["END"])
        assert (params.json_schema, params.HasField("logprobs"), params.logprobs) == (SCHEMA, True, 0)

    async def test_any_json_is_asked_for_as_such(self) -> None:
        request = prompt("Hi")
        request.response_format.json_object = True
        assert (await self.written(request)).sampling_params.json_object

    async def test_the_sampling_of_the_models_author_holds_where_the_request_says_nothing(self) -> None:
        author = '{"temperature":0.6,"top_p":0.9,"top_k":20,"min_p":0.25,"repetition_penalty":1.5}'
        params = (await self.written(prompt("Hi", top_p=0.5), default_sampling_params_json=author)).sampling_params
        assert params.temperature == pytest.approx(0.6)
        assert (params.top_p, params.top_k, params.min_p, params.repetition_penalty) == (0.5, 20, 0.25, 1.5)

    async def test_texts_are_embedded_each_in_its_place(self) -> None:
        engine = self.scripted()
        engine.unary["Embed"] = lambda request: engine.pb.EmbedResponse(
            embedding=[len(request.tokenized.input_ids), 0.5], prompt_tokens=len(request.tokenized.input_ids)
        )
        texts = ["x" * count for count in range(1, 41)]
        async with self.asking(engine) as client:
            answer = await client.embed(inference_pb2.EmbedRequest(model="public", input=texts), served_model="s")
        assert [list(one.values) for one in answer.embeddings] == [[count, 0.5] for count in range(1, 41)]
        assert [one.index for one in answer.embeddings] == list(range(40))
        assert (answer.model, answer.usage.input_tokens) == ("public", sum(range(1, 41)))
        assert answer.usage.method == common_pb2.USAGE_METHOD_ENGINE

    async def test_a_model_that_does_not_embed_refuses(self) -> None:
        request = inference_pb2.EmbedRequest(model="public", input=["a", "b"])
        async with self.emulator() as (client, _):
            with pytest.raises(EngineError) as raised:
                await client.embed(request, served_model="s")
        assert raised.value.reason is Reason.ENGINE_REFUSED

    async def test_a_text_that_does_not_fit_is_refused_before_it_is_sent(self) -> None:
        engine = self.scripted()
        engine.unary["GetModelInfo"] = engine.pb.GetModelInfoResponse(max_context_length=4)
        engine.unary["Embed"] = engine.pb.EmbedResponse(embedding=[1.0])
        async with self.asking(engine) as client:
            with pytest.raises(RequestError, match="5 tokens of 4") as raised:
                await client.embed(inference_pb2.EmbedRequest(model="m", input=["12345"]), served_model="s")
        assert raised.value.reason is Reason.CONTEXT_TOO_LONG
        assert "Embed" not in engine.called

    async def test_shorter_embeddings_are_refused(self) -> None:
        client = VllmGrpcEngine("127.0.0.1:1")
        request = inference_pb2.EmbedRequest(model="public", input=["a"], dimensions=8)
        with pytest.raises(RequestError, match="dimensions is not supported"):
            await client.embed(request, served_model="s")
        await client.aclose()

    async def test_a_context_that_the_engine_finds_too_long_is_the_callers_fault(self) -> None:
        async with self.emulator(context_tokens_max=8) as (client, _):
            channel = client._channel  # type: ignore[attr-defined]  # past the client's own look at the context
            asked = self.scripted().pb.GenerateRequest(request_id="r", tokenized={"input_ids": ids_of("too long!")})
            call = channel.open("/vllm.grpc.engine.VllmEngine/Generate", asked, type(asked), {})
            with pytest.raises(RequestError) as raised:
                async for _ in channel.messages(call):
                    pass
        assert raised.value.reason is Reason.CONTEXT_TOO_LONG

    async def test_an_engine_without_the_service_refuses(self) -> None:
        engine = self.scripted()
        engine.unary["GetModelInfo"] = grpc.StatusCode.UNIMPLEMENTED
        async with self.asking(engine) as client:
            with pytest.raises(EngineError, match="UNIMPLEMENTED") as raised:
                await generated(client, prompt("Hi"))
        assert raised.value.reason is Reason.ENGINE_REFUSED
