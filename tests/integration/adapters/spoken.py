"""Every kind of engine that is spoken to over HTTP, and what each is like behind its adapter."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import aiohttp

from enginehouse.adapters.collect import CollectedAnswer, Collector
from enginehouse.adapters.engine import EngineClient, EngineGeneration
from enginehouse.contract import Reason
from enginehouse.engines.emulators import EmulatorOptions, make_emulation, running
from enginehouse.services.node.engine_clients import engine_client
from enginehouse.v1 import admin_pb2, common_pb2, inference_pb2
from tests.conformance.emulators.caller import Caller
from tests.integration.adapters.node import NodeUnderTest, node

MODEL, SERVED = "public", "emulated"
HELLO = "Hello big world"
LONG = " ".join(f"w{number}" for number in range(200))
SCHEMA = '{"type":"object","properties":{"why":{"type":"string"},"answer":{"type":"integer","minimum":7}}}'
OPENAI, NATIVE = admin_pb2.ENGINE_API_OPENAI, admin_pb2.ENGINE_API_NATIVE
ADAPTER, PARTIAL, UNKNOWN = (
    common_pb2.USAGE_METHOD_ADAPTER,
    common_pb2.USAGE_METHOD_ENGINE_PARTIAL,
    common_pb2.USAGE_METHOD_UPPER_BOUND,
)
Wish = Callable[[inference_pb2.GenerateRequest], object]


def _give(**members: object) -> Wish:
    return lambda request: request.MergeFrom(inference_pb2.GenerateRequest(**members))  # type: ignore[arg-type]


def _sample(**members: object) -> Wish:
    return lambda request: request.sampling.MergeFrom(inference_pb2.Sampling(**members))  # type: ignore[arg-type]


# What a client may ask for, and the words by which it is refused.
WISHES: Mapping[str, Wish] = MappingProxyType(
    {
        "tools": _give(tools=[inference_pb2.Tool(name="now")]),
        "response_format": lambda request: setattr(request.response_format.json_schema, "schema", SCHEMA),
        "response_format of type json_object": _give(response_format=inference_pb2.ResponseFormat(json_object=True)),
        "an image": lambda request: request.conversation.messages[0].parts.add(
            image=inference_pb2.Image(url="https://example.com/a.png")
        ),
        "logprobs": _sample(top_logprobs=1),
        "6 logprobs per token": _sample(top_logprobs=6),
        "more than one choice": _sample(choices=2),
        "a penalty": _sample(frequency_penalty=0.5),
        "presence_penalty": _sample(presence_penalty=0.5),
        "top_k": _sample(top_k=5),
        "a negative seed": _sample(seed=-1),
        "lora": _give(lora="mine"),
        "reasoning.effort": _give(reasoning=inference_pb2.Reasoning(effort=inference_pb2.Reasoning.EFFORT_LOW)),
        "reasoning": _give(reasoning=inference_pb2.Reasoning(effort=inference_pb2.Reasoning.EFFORT_LOW)),
        "priority": _give(priority=-1),
        "return_token_ids": _give(return_token_ids=True),
        "a prompt of token ids": _give(prompt_tokens=inference_pb2.TokenIds(ids=[1])),
        "metadata": _give(metadata={"a": "b"}),
        "messages": lambda request: request.conversation.messages.add(
            role=inference_pb2.ROLE_ASSISTANT, parts=[inference_pb2.Part(text="The answer is")]
        ),
    }
)


@dataclass(frozen=True)
class Spoken:
    """One kind of engine behind its adapter.

    Attributes:
        name: as engines are called in messages.
        refuses: the wishes that it refuses, all others reach it.
        overloaded: what "too busy" becomes; MLX has one word for every failure.
        broken: what a breakdown in mid-stream becomes.
        names_stop: it tells which stop sequence ended an answer.
        cut_usage: how a stream that was cut is counted.
        tells_logprobs: its emulator does; SGLang's and TensorRT-LLM's have none.
        counts: what it counts the tokens of: "chat", "prompt".
        templates: it is sent a conversation as its chat template writes it, so the emulator says that back.
    """

    kind: str
    name: str
    api: admin_pb2.EngineApi.ValueType = OPENAI
    refuses: frozenset[str] = frozenset()
    overloaded: Reason = Reason.ENGINE_OVERLOADED
    broken: Reason = Reason.ENGINE_FAILED
    names_stop: bool = True
    cut_usage: common_pb2.UsageMethod.ValueType = PARTIAL
    tells_logprobs: bool = True
    counts: frozenset[str] = field(default_factory=frozenset)
    templates: bool = False


_FOR_OTHERS = frozenset({"6 logprobs per token", "reasoning"})  # words that only some use
SPOKEN: Mapping[str, Spoken] = MappingProxyType(
    {
        "vllm": Spoken("vllm", "vLLM", counts=frozenset({"chat", "prompt"})),
        "sglang": Spoken("sglang", "SGLang", tells_logprobs=False, counts=frozenset({"prompt"})),
        "tensorrt-llm": Spoken(
            "tensorrt-llm",
            "TensorRT-LLM",
            refuses=frozenset({"lora", "priority", "return_token_ids", "metadata", "messages"}),
            tells_logprobs=False,
        ),
        "tgi": Spoken(
            "tgi",
            "TGI",
            refuses=frozenset(
                {
                    *("more than one choice", "presence_penalty", "top_k", "a negative seed", "reasoning.effort"),
                    *("priority", "return_token_ids", "a prompt of token ids", "messages"),
                    "response_format of type json_object",
                }
            ),
            cut_usage=ADAPTER,
            counts=frozenset({"chat", "prompt"}),
        ),
        "tgi-native": Spoken(
            "tgi",
            "TGI",
            NATIVE,
            refuses=frozenset(
                {
                    *("tools", "more than one choice", "presence_penalty", "a negative seed", "reasoning"),
                    *("priority", "a prompt of token ids", "messages", "6 logprobs per token"),
                    "response_format of type json_object",
                }
            ),
            cut_usage=ADAPTER,
            counts=frozenset({"chat", "prompt"}),
            templates=True,
        ),
        "llama-cpp": Spoken(
            "llama-cpp",
            "llama.cpp",
            refuses=frozenset({"lora", "priority", "return_token_ids", "reasoning.effort"}),
            names_stop=False,
            counts=frozenset({"chat", "prompt"}),
        ),
        "mlx": Spoken(
            "mlx",
            "MLX",
            refuses=frozenset(
                {
                    *("tools", "response_format", "an image", "logprobs", "more than one choice", "a penalty"),
                    *("lora", "priority", "return_token_ids", "a prompt of token ids", "reasoning.effort", "messages"),
                }
            ),
            overloaded=Reason.ENGINE_FAILED,
            cut_usage=UNKNOWN,
            tells_logprobs=False,
        ),
    }
)


def wishes(name: str) -> Mapping[str, bool]:
    """Each wish that can be told to this engine, and whether it is refused by that word."""
    spoken = SPOKEN[name]
    told = set(WISHES) - (_FOR_OTHERS - spoken.refuses)
    if "reasoning" in spoken.refuses:
        told.discard("reasoning.effort")
    if name == "mlx":  # refused by the wider word
        told -= {"response_format of type json_object", "presence_penalty"}
    return {wish: wish in spoken.refuses for wish in sorted(told)}


@dataclass(frozen=True)
class Conversing:
    """An engine that runs, and a client that speaks to it."""

    spoken: Spoken
    client: EngineClient
    caller: Caller

    def generate(self, request: inference_pb2.GenerateRequest, *, tokens_max: int = 64) -> EngineGeneration:
        """Asks for a generation."""
        return self.client.generate(request, served_model=SERVED, output_tokens_max=tokens_max, generation_id="g-1")

    async def answer(self, request: inference_pb2.GenerateRequest, *, tokens_max: int = 64) -> CollectedAnswer:
        """A whole generation."""
        collector = Collector()
        async with self.generate(request, tokens_max=tokens_max) as generation:
            async for step in generation:
                collector.add(step)
        return collector.answer()


@asynccontextmanager
async def conversing(name: str, session: aiohttp.ClientSession, **options: object) -> AsyncIterator[Conversing]:
    """The emulator of that engine, with options of the test's own, and its client."""
    spoken = SPOKEN[name]
    emulation = make_emulation(
        spoken.kind,
        EmulatorOptions(models=(SERVED, "default_model", "mine"), controls=True, **options),  # type: ignore[arg-type]
    )
    async with running(emulation) as address:
        client = engine_client(spoken.kind, spoken.api, address, session)
        yield Conversing(spoken, client, Caller(address, session))
        await client.aclose()


@asynccontextmanager
async def door(
    name: str, session: aiohttp.ClientSession, folder: Path
) -> AsyncIterator[tuple[NodeUnderTest, Conversing]]:
    """A node in front of that engine's emulator."""
    spoken = SPOKEN[name]
    async with (
        conversing(name, session) as engine,
        node(
            f"http://{engine.caller.address}", session, folder, engine=spoken.kind, api=spoken.api, model=SERVED
        ) as started,
    ):
        yield started, engine


def prompt(text: str = HELLO, **sampling: object) -> inference_pb2.GenerateRequest:
    """A prompt to go on from."""
    return inference_pb2.GenerateRequest(model=MODEL, prompt=text, sampling=inference_pb2.Sampling(**sampling))  # type: ignore[arg-type]


def chat(text: str = HELLO, **sampling: object) -> inference_pb2.GenerateRequest:
    """A conversation of one message."""
    request = inference_pb2.GenerateRequest(model=MODEL, sampling=inference_pb2.Sampling(**sampling))  # type: ignore[arg-type]
    request.conversation.messages.add(role=inference_pb2.ROLE_USER, parts=[inference_pb2.Part(text=text)])
    return request
