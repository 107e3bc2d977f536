"""TGI's emulator: OpenAI's routes, and its own."""

from collections.abc import Mapping
from typing import ClassVar

from enginehouse.v1 import admin_pb2
from tests.conformance.engines.columns import Column
from tests.conformance.engines.emulated import Emulated
from tests.conformance.engines.subject import Refusal, Running, Subject, Whole
from tests.conformance.engines.suite import ConformanceSuite

_GENERATES = Refusal("TGI serves models that generate; embeddings and ranking are other servers'")


class Tgi(Emulated, Subject):
    """TGI, by OpenAI's routes."""

    kind = "tgi"
    emulator = "tgi"
    program = "text-generation-launcher"
    refused: ClassVar[Mapping[Column, Refusal]] = {
        Column.CHOICES: Refusal("TGI answers with one choice, whatever `n` is"),
        Column.EMBEDDINGS: _GENERATES,
        Column.RERANK: _GENERATES,
    }


class TestTgiEmulated(Tgi, ConformanceSuite):
    """OpenAI's routes."""

    title = "TGI, OpenAI's routes"
    not_shown: ClassVar[Mapping[Column, str]] = {Column.TOOLS: "the emulator calls no tools"}


class TestTgiNativeEmulated(Tgi, ConformanceSuite):
    """Its own routes: /generate and /generate_stream."""

    title = "TGI, /generate"
    refused: ClassVar[Mapping[Column, Refusal]] = {
        **Tgi.refused,
        Column.TOOLS: Refusal("TGI's /generate makes text alone"),
    }
    api = admin_pb2.ENGINE_API_NATIVE

    async def whole(self, running: Running, text: str, tokens: int) -> Whole:
        """By /generate, of the text that its own template makes of the conversation."""
        messages = {"messages": [{"role": "user", "content": text}]}
        templated = (await running.post("/chat_tokenize", messages))["templated_text"]
        parameters = {"max_new_tokens": tokens, "details": True, "decoder_input_details": True, "do_sample": False}
        answer = await running.post("/generate", {"inputs": templated, "parameters": parameters})
        details = answer["details"]
        return Whole(answer["generated_text"], len(details["prefill"]), details["generated_tokens"])

    async def is_refused(self, running: Running) -> bool:
        """Inputs that are none."""
        status, _ = await running.answer("/generate", {"inputs": 5})
        return 400 <= status < 500
