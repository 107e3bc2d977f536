"""What every engine that speaks token ids over gRPC does for a canonical request, whichever service it has."""

import asyncio
import io
import socket
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest

from enginehouse.adapters.engine import EngineClient
from enginehouse.contract import EngineError, EnginehouseError, Reason, RequestError
from enginehouse.engines.emulators import Fault, FaultKind
from enginehouse.engines.emulators.core.engine import EmulatedEngine
from enginehouse.v1 import common_pb2, inference_pb2
from tests.integration.adapters.token_engines import (
    EOS_ID,
    ScriptedEngine,
    archive,
    emulated,
    generated,
    ids_of,
    prompt,
)
from tests.support.waiting import until, until_async
from tests.unit.adapters.build import conversation

USER, ASSISTANT, SYSTEM = inference_pb2.ROLE_USER, inference_pb2.ROLE_ASSISTANT, inference_pb2.ROLE_SYSTEM
CHAT = conversation((SYSTEM, "Be brief."), (USER, "One"), (ASSISTANT, "Two"), (USER, "Drei 🎉"))
# The emulators say the prompt back, so this is how the template wrote it.
WRITTEN = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne<|im_end|>\n<|im_start|>assistant\nTwo<|im_end|>\n"
    "<|im_start|>user\nDrei 🎉<|im_end|>\n<|im_start|>assistant\n"
)
STOP, LENGTH = inference_pb2.FINISH_REASON_STOP, inference_pb2.FINISH_REASON_LENGTH
ENGINE, PARTIAL = common_pb2.USAGE_METHOD_ENGINE, common_pb2.USAGE_METHOD_ENGINE_PARTIAL
NONE = common_pb2.USAGE_METHOD_NONE
TOOL = inference_pb2.Tool(name="get_weather")
PNG = inference_pb2.Part(image=inference_pb2.Image(data=b"x", media_type="image/png"))
UNSUPPORTED = {
    "tools": inference_pb2.GenerateRequest(model="m", conversation=CHAT, tools=[TOOL]),
    "an image": inference_pb2.GenerateRequest(
        model="m", conversation=inference_pb2.Conversation(messages=[inference_pb2.Message(role=USER, parts=[PNG])])
    ),
    "lora": inference_pb2.GenerateRequest(model="m", conversation=CHAT, lora="law"),
    "reasoning": inference_pb2.GenerateRequest(
        model="m", conversation=CHAT, reasoning=inference_pb2.Reasoning(budget_tokens=5)
    ),
    "priority": inference_pb2.GenerateRequest(model="m", conversation=CHAT, priority=1),
    "messages": inference_pb2.GenerateRequest(model="m", conversation=conversation((ASSISTANT, "I am"))),
    "sampling.top_k": prompt("x", top_k=-2),
    "sampling.seed": prompt("x", seed=-(2**40)),
    "sampling.stop": prompt("x", stop=[str(number) for number in range(65)]),
}


class TokenEngineSuite:
    """The suite. A subclass says which emulator, which client, and how the service writes its messages."""

    kind: ClassVar[str]
    client: ClassVar[Callable[..., EngineClient]]
    name: ClassVar[str]

    def scripted(self, **members: Any) -> ScriptedEngine:  # noqa: ANN401
        """A scripted engine of this service."""
        raise NotImplementedError

    def chunk(self, engine: ScriptedEngine, token_ids: list[int], generated_before: int = 0) -> object:
        """The message with the next tokens of the first choice."""
        raise NotImplementedError

    def end(self, engine: ScriptedEngine, token_ids: list[int], reason: str, stop: str = "") -> object:
        """The message with the end of the first choice; `token_ids` are all of its tokens."""
        raise NotImplementedError

    @asynccontextmanager
    async def emulator(self, **options: Any) -> AsyncIterator[tuple[EngineClient, EmulatedEngine]]:  # noqa: ANN401
        """A client of the emulator."""
        timeouts = {"idle_timeout_s": options.pop("idle_timeout_s", 20.0)}
        async with emulated(self.kind, **options) as (address, engine):
            client = type(self).client(address, **timeouts)
            try:
                yield client, engine
            finally:
                await client.aclose()

    @asynccontextmanager
    async def asking(self, engine: ScriptedEngine) -> AsyncIterator[EngineClient]:
        """A client of a scripted engine."""
        async with engine.running() as address:
            client = type(self).client(address, idle_timeout_s=20.0)
            try:
                yield client
            finally:
                await client.aclose()

    async def test_a_prompt_is_generated_and_counted_by_the_engine(self) -> None:
        async with self.emulator() as (client, _):
            whole = await generated(client, prompt("Hello"))
        assert whole.texts == ["Hello"]
        assert whole.answer.choices[0].finish_reason == STOP
        assert (whole.usage.input_tokens, whole.usage.output_tokens, whole.usage.method) == (5, 6, ENGINE)
        assert whole.steps[-1].finished.usage == whole.usage
        assert {(step.id, step.model) for step in whole.steps} == {("g1", "public")}

    async def test_a_conversation_is_written_by_the_models_own_template(self) -> None:
        request = inference_pb2.GenerateRequest(model="public", conversation=CHAT)
        async with self.emulator() as (client, _):
            whole = await generated(client, request)
        assert whole.texts == [WRITTEN]
        assert whole.usage.input_tokens == len(WRITTEN.encode())

    async def test_characters_that_take_several_tokens_come_whole(self) -> None:
        text = "é 🎉 日本語 ß"
        request = prompt(text)
        request.return_token_ids = True
        async with self.emulator() as (client, _):
            whole = await generated(client, request)
        assert whole.texts == [text]
        assert not any("\N{REPLACEMENT CHARACTER}" in step.delta.text for step in whole.steps)
        assert whole.token_ids == [*ids_of(text), EOS_ID]

    async def test_a_character_that_the_limit_cuts_is_left_out(self) -> None:
        async with self.emulator() as (client, _):
            whole = await generated(client, prompt("a🎉", max_output_tokens=3))
        assert whole.texts == ["a"]
        assert (whole.answer.choices[0].finish_reason, whole.usage.output_tokens) == (LENGTH, 3)

    async def test_a_prompt_of_token_ids_is_sent_as_it_is(self) -> None:
        ids = inference_pb2.TokenIds(ids=ids_of("as it is"))
        async with self.emulator() as (client, _):
            whole = await generated(client, inference_pb2.GenerateRequest(model="public", prompt_tokens=ids))
        assert whole.texts == ["as it is"]

    async def test_a_stop_sequence_is_named_and_nothing_of_it_told(self) -> None:
        async with self.emulator() as (client, _):
            whole = await generated(client, prompt("one two three four", stop=["five", "three"]))
        (choice,) = whole.answer.choices
        assert (choice.text, choice.finish_reason, choice.stop_sequence) == ("one two ", STOP, "three")
        assert whole.usage.method == ENGINE

    async def test_what_only_looked_like_a_stop_sequence_is_told(self) -> None:
        async with self.emulator() as (client, _):
            whole = await generated(client, prompt("one thr", stop=["three"]))
        assert whole.texts == ["one thr"]

    async def test_choices_are_told_apart_and_counted_together(self) -> None:
        async with self.emulator() as (client, _):
            whole = await generated(client, prompt("Hi", choices=2))
        assert whole.texts == ["Hi", "Hi"]
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (2, 6)

    @pytest.mark.parametrize(("asked", "allowed"), [(3, 10), (10, 3), (None, 3)])
    async def test_the_lower_limit_of_the_output_holds(self, asked: int | None, allowed: int) -> None:
        sampling = {} if asked is None else {"max_output_tokens": asked}
        async with self.emulator() as (client, _):
            whole = await generated(client, prompt("abcdefgh", **sampling), output_tokens_max=allowed)
        assert whole.texts == ["abc"]
        assert whole.answer.choices[0].finish_reason == LENGTH

    async def test_the_output_is_bounded_by_what_the_prompt_leaves_of_the_context(self) -> None:
        async with self.emulator(context_tokens_max=12) as (client, _):
            whole = await generated(client, prompt("abcdefgh"))
        assert (whole.texts, whole.usage.output_tokens) == (["abcd"], 4)

    async def test_a_prompt_that_does_not_fit_is_refused_before_it_is_sent(self) -> None:
        async with self.emulator(context_tokens_max=8) as (client, engine):
            with pytest.raises(RequestError, match="8 tokens of 8") as raised:
                await generated(client, prompt("abcdefgh"))
            assert engine.counts.requests == 0
        assert raised.value.reason is Reason.CONTEXT_TOO_LONG

    async def test_log_probabilities_belong_to_their_tokens(self) -> None:
        async with self.emulator() as (client, _):
            whole = await generated(client, prompt("Hey", top_logprobs=1))
        logprobs = whole.answer.choices[0].logprobs
        assert [one.token for one in logprobs] == ["H", "e", "y", "</s>"]
        assert [one.token_bytes for one in logprobs[:3]] == [b"H", b"e", b"y"]
        assert all(one.logprob < 0 for one in logprobs)

    async def test_tokens_are_counted_as_they_are_sent(self) -> None:
        request = inference_pb2.CountTokensRequest(model="public", conversation=CHAT)
        async with self.emulator() as (client, _):
            counted = await client.count_tokens(request, served_model="served")
            plain = inference_pb2.CountTokensRequest(model="public", prompt="🎉")
            assert (await client.count_tokens(plain, served_model="served")).input_tokens == 4
        assert counted.input_tokens == len(WRITTEN.encode())

    @pytest.mark.parametrize("field", UNSUPPORTED)
    async def test_what_the_service_cannot_do_is_refused_by_name_before_anything_is_sent(self, field: str) -> None:
        client = type(self).client("127.0.0.1:1")
        with pytest.raises(RequestError) as raised:
            client.generate(UNSUPPORTED[field], served_model="s", output_tokens_max=1, generation_id="g1")
        assert raised.value.reason is Reason.UNSUPPORTED_FIELD
        assert raised.value.message.startswith(f"{field} is not supported")
        assert self.name in raised.value.message
        await client.aclose()

    async def test_ranking_is_refused(self) -> None:
        client = type(self).client("127.0.0.1:1")
        request = inference_pb2.RerankRequest(model="m", query="q", documents=["d"])
        with pytest.raises(RequestError, match="cannot rank") as raised:
            await client.rerank(request, served_model="s")
        assert raised.value.reason is Reason.CAPABILITY_NOT_FOUND
        await client.aclose()

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (FaultKind.ERROR_FRAME, Reason.ENGINE_FAILED),
            (FaultKind.UNAVAILABLE, Reason.ENGINE_OVERLOADED),
            (FaultKind.REFUSE, Reason.ENGINE_FAILED),
            (FaultKind.GARBAGE, Reason.ENGINE_FAILED),
        ],
    )
    async def test_a_fault_is_an_error_that_costs_nothing_and_passes(self, fault: FaultKind, reason: Reason) -> None:
        async with self.emulator(faults=(Fault(kind=fault),)) as (client, _):
            generation = client.generate(prompt("Hi"), served_model="s", output_tokens_max=9, generation_id="g1")
            with pytest.raises(EngineError) as raised:
                async for _step in generation:
                    pass
            assert raised.value.reason is reason
            assert generation.usage.method in (NONE, PARTIAL)
            assert generation.usage.output_tokens == 0
            assert (await generated(client, prompt("Hi"))).texts == ["Hi"]

    @pytest.mark.parametrize("fault", [FaultKind.ERROR_FRAME, FaultKind.CUT])
    async def test_a_stream_that_dies_ends_in_an_error_with_the_running_count(self, fault: FaultKind) -> None:
        async with self.emulator(faults=(Fault(kind=fault, after_tokens=2),)) as (client, _):
            generation = client.generate(prompt("abcd"), served_model="s", output_tokens_max=9, generation_id="g1")
            steps = [await anext(generation), await anext(generation)]
            with pytest.raises(EngineError):
                await anext(generation)
            assert "".join(step.delta.text for step in steps) == "ab"
            usage = generation.usage
        assert (usage.input_tokens, usage.output_tokens, usage.method) == (4, 2, PARTIAL)

    async def test_an_engine_that_hangs_is_left_and_its_place_freed(self) -> None:
        faults = (Fault(kind=FaultKind.HANG, after_tokens=1),)
        async with self.emulator(faults=faults, idle_timeout_s=0.2) as (client, engine):
            with pytest.raises(EngineError) as raised:
                await generated(client, prompt("abcd"))
            assert raised.value.reason is Reason.ENGINE_TIMEOUT
            await until(lambda: engine.batch.running == 0, "the place is free")

    async def test_a_client_that_leaves_frees_the_place(self) -> None:
        faults = (Fault(kind=FaultKind.HANG, after_tokens=2),)
        async with self.emulator(faults=faults, places=1) as (client, engine):
            generation = client.generate(prompt("abcd"), served_model="s", output_tokens_max=9, generation_id="g1")
            steps = [await anext(generation), await anext(generation)]
            assert engine.batch.running == 1
            await generation.aclose()
            await until(lambda: engine.batch.running == 0, "the place is free")
            assert "".join(step.delta.text for step in steps) == "ab"
            assert (generation.usage.output_tokens, generation.usage.method) == (2, PARTIAL)
            assert (await generated(client, prompt("next"))).texts == ["next"]

    async def test_a_client_that_is_cancelled_before_the_first_token_frees_the_place(self) -> None:
        async with self.emulator() as (client, engine):
            engine.gate.clear()
            waiting = asyncio.create_task(generated(client, prompt("abcd")))
            await until(lambda: engine.batch.running == 1, "the request is at work")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: engine.batch.running == 0, "the place is free")

    async def test_a_generation_that_was_never_asked_for_used_nothing(self) -> None:
        client = type(self).client("127.0.0.1:1")
        generation = client.generate(prompt("x"), served_model="s", output_tokens_max=1, generation_id="g1")
        assert generation.usage.method == NONE
        await generation.aclose()
        await client.aclose()

    async def test_an_engine_that_comes_up_late_is_reached_by_the_same_client(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        client = type(self).client(f"127.0.0.1:{port}")
        with pytest.raises(EngineError, match="cannot be reached") as raised:
            await generated(client, prompt("Hi"))
        assert raised.value.reason is Reason.ENGINE_FAILED

        async def answers() -> bool:
            try:
                return (await generated(client, prompt("Hi"))).texts == ["Hi"]
            except EngineError:
                return False

        async with emulated(self.kind, port=port):
            await until_async(answers, "the engine is reached")
            await client.aclose()

    async def test_the_tokenizer_is_fetched_once(self) -> None:
        engine = self.scripted()
        engine.answers = lambda _: [self.chunk(engine, ids_of("ok")), self.end(engine, ids_of("ok"), "stop")]
        async with self.asking(engine) as client:
            await asyncio.gather(*(generated(client, prompt("Hi")) for _ in range(3)))
        assert engine.tokenizers == 1

    async def test_an_engine_that_comes_back_with_another_model_is_learned_anew(self) -> None:
        engine = self.scripted()
        engine.answers = lambda _: [self.end(engine, ids_of("ok"), "stop")]
        request = inference_pb2.GenerateRequest(model="m", conversation=CHAT)
        async with self.asking(engine) as client:
            await generated(client, request)
            engine.archive = archive(chat_template__jinja="new: {{ messages[-1].content }}")
            answers, engine.answers = engine.answers, lambda _: [grpc.StatusCode.UNAVAILABLE]
            with pytest.raises(EngineError):
                await generated(client, request)
            engine.answers = answers
            await generated(client, request)
        asked = engine.asked[-1][0]
        assert str(ids_of("new: Drei 🎉")[-1]) in str(asked.tokenized)
        assert len(str(asked.tokenized)) < len(str(engine.asked[0][0].tokenized))

    async def test_headers_are_sent_along(self) -> None:
        engine = self.scripted()
        engine.answers = lambda _: [self.end(engine, ids_of("ok"), "stop")]
        headers = {"X-Request-Id": "r1", "traceparent": "00-1-2-01", "bad name": "x", "x-umlaut": "ä"}
        async with self.asking(engine) as client:
            whole = await generated(client, prompt("Hi"), headers=headers)
        assert whole.texts == ["ok"]
        ((_, metadata),) = engine.asked
        assert (metadata["x-request-id"], metadata["traceparent"]) == ("r1", "00-1-2-01")
        assert "x-umlaut" not in metadata

    async def test_requests_of_one_generation_id_have_ids_of_their_own(self) -> None:
        engine = self.scripted()
        engine.answers = lambda _: [self.end(engine, ids_of("ok"), "stop")]
        async with self.asking(engine) as client:
            await generated(client, prompt("Hi"))
            await generated(client, prompt("Hi"))
        (first, _), (second, _) = engine.asked
        assert first.request_id != second.request_id

    async def test_an_engine_that_does_not_see_a_stop_sequence_is_stopped(self) -> None:
        engine = self.scripted()
        never = asyncio.Event()
        pieces = ["ab", "c\n", "\nd", "e"]
        before = [sum(map(len, pieces[:index])) for index in range(len(pieces))]
        engine.answers = lambda _: [
            *(self.chunk(engine, ids_of(text), count) for text, count in zip(pieces, before, strict=True)),
            never,
        ]
        async with self.asking(engine) as client:
            whole = await generated(client, prompt("Hi", stop=["\n\n"]))
            ((asked, _),) = engine.asked
            (abort,) = engine.called["Abort"]
        (choice,) = whole.answer.choices
        assert (choice.text, choice.finish_reason, choice.stop_sequence) == ("abc", STOP, "\n\n")
        assert (whole.usage.output_tokens, whole.usage.method) == (7, PARTIAL)
        assert asked.request_id in str(abort)

    async def test_the_rest_of_a_stop_sequence_that_the_engine_keeps_is_not_told(self) -> None:
        engine = self.scripted()
        told = ids_of("abc E")
        engine.answers = lambda _: [self.chunk(engine, told), self.end(engine, told, "stop", stop="END")]
        async with self.asking(engine) as client:
            whole = await generated(client, prompt("Hi", stop=["END"]))
        (choice,) = whole.answer.choices
        assert (choice.text, choice.finish_reason, choice.stop_sequence) == ("abc ", STOP, "END")

    @pytest.mark.parametrize("reason", ["abort", "error", "", "cancelled", "timeout"])
    async def test_an_end_that_nobody_asked_for_is_a_failure(self, reason: str) -> None:
        engine = self.scripted()
        engine.answers = lambda _: [self.chunk(engine, ids_of("a")), self.end(engine, ids_of("a"), reason)]
        async with self.asking(engine) as client:
            with pytest.raises(EngineError, match="neither stop nor length"):
                await generated(client, prompt("Hi"))

    async def test_a_stream_without_an_end_is_a_failure(self) -> None:
        engine = self.scripted()
        engine.answers = lambda _: [self.chunk(engine, ids_of("a"))]
        async with self.asking(engine) as client:
            with pytest.raises(EngineError, match="ended early: 0 of 1"):
                await generated(client, prompt("Hi"))

    @pytest.mark.parametrize("code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL])
    async def test_a_status_is_an_error_of_the_engine_and_its_words_stay_here(self, code: grpc.StatusCode) -> None:
        engine = self.scripted()
        engine.answers = lambda _: [self.chunk(engine, ids_of("a")), code]
        async with self.asking(engine) as client:
            with pytest.raises(EngineError) as raised:
                await generated(client, prompt("Hi"))
        assert raised.value.reason is Reason.ENGINE_FAILED
        assert "secret" not in raised.value.message

    async def test_a_model_without_a_chat_template_takes_prompts_alone(self) -> None:
        engine = self.scripted(archive=archive(tokenizer_config__json={"eos_token": "</s>"}))
        engine.answers = lambda _: [self.end(engine, ids_of("ok"), "stop")]
        async with self.asking(engine) as client:
            with pytest.raises(RequestError, match=r"conversation is not supported: .* has no chat template") as raised:
                await generated(client, inference_pb2.GenerateRequest(model="m", conversation=CHAT))
            assert engine.asked == []
            assert (await generated(client, prompt("Hi"))).texts == ["ok"]
        assert raised.value.reason is Reason.UNSUPPORTED_FIELD

    async def test_a_template_that_refuses_a_conversation_says_so_without_quoting_it(self) -> None:
        template = "{{ raise_exception('bad: ' + messages[0]['content']) }}"
        engine = self.scripted(archive=archive(chat_template__jinja=template))
        async with self.asking(engine) as client:
            with pytest.raises(RequestError, match="the chat template of the model") as raised:
                await generated(client, inference_pb2.GenerateRequest(model="m", conversation=CHAT))
        assert "brief" not in raised.value.message

    @pytest.mark.parametrize(
        ("members", "words"),
        [
            ({"archive": b"no zip"}, "no zip"),
            ({"digest": "0" * 64}, "does not match its SHA-256"),
            ({"archive": archive(tokenizer__json=None)}, "no tokenizer.json"),
            ({"archive": archive(tokenizer__json="{}")}, "cannot be read"),
            ({"archive": archive(chat_template__jinja="{% if %}")}, "chat template"),
            ({"archive": None}, "hands out no tokenizer"),
        ],
    )
    async def test_a_tokenizer_that_cannot_be_used_is_the_engines_fault(
        self, members: dict[str, Any], words: str
    ) -> None:
        async with self.asking(self.scripted(**members)) as client:
            with pytest.raises(EnginehouseError, match=words) as raised:
                await generated(client, prompt("Hi"))
        assert isinstance(raised.value, EngineError)

    async def test_an_engine_that_hands_out_no_tokenizer_is_read_from_its_folder(self, tmp_path: Path) -> None:
        self.write_tokenizer(tmp_path)
        engine = self.scripted(archive=None)
        engine.unary["GetModelInfo"] = self.model_info(engine, tmp_path)
        engine.answers = lambda _: [self.end(engine, ids_of("ok"), "stop")]
        async with self.asking(engine) as client:
            assert (await generated(client, prompt("Hi"))).texts == ["ok"]

    def write_tokenizer(self, folder: Path) -> None:
        """Puts the emulators' tokenizer into a folder."""
        with zipfile.ZipFile(io.BytesIO(archive())) as bundle:
            bundle.extractall(folder)

    def model_info(self, engine: ScriptedEngine, folder: Path) -> object:
        """The message that names the model's folder."""
        raise NotImplementedError
