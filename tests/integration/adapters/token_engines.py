"""Engines that speak token ids over gRPC: emulators, and one whose every answer a test writes itself."""

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from enginehouse.adapters import CollectedAnswer, collect
from enginehouse.adapters.engine import EngineClient
from enginehouse.engines.emulators import EmulatorOptions, Face, make_emulation, running
from enginehouse.engines.emulators.core import byte_tokenizer
from enginehouse.engines.emulators.core.engine import EmulatedEngine, Phase
from enginehouse.engines.emulators.core.plan import BYTE_ID_MIN
from enginehouse.engines.emulators.core.rpc import Streaming, add_service, load_protos
from enginehouse.v1 import common_pb2, inference_pb2
from tests.support.waiting import until

EOS_ID = 2
Connect = Callable[..., EngineClient]


def ids_of(text: str) -> list[int]:
    """Token ids of the emulators' tokenizer, a byte each."""
    return [BYTE_ID_MIN + byte for byte in text.encode()]


def prompt(text: str, **sampling: Any) -> inference_pb2.GenerateRequest:  # noqa: ANN401
    """A request for the completion of a prompt."""
    return inference_pb2.GenerateRequest(model="public", prompt=text, sampling=inference_pb2.Sampling(**sampling))


@dataclass(frozen=True, slots=True)
class Generated:
    """A generation to its end."""

    steps: list[inference_pb2.GenerateResponse]
    usage: common_pb2.Usage

    @property
    def answer(self) -> CollectedAnswer:
        """The whole answer."""
        return collect(self.steps)

    @property
    def texts(self) -> list[str]:
        """The texts of the choices."""
        return [choice.text for choice in self.answer.choices]

    @property
    def token_ids(self) -> list[int]:
        """Of all steps."""
        return [token_id for step in self.steps for token_id in step.delta.token_ids]


async def generated(
    client: EngineClient,
    request: inference_pb2.GenerateRequest,
    *,
    output_tokens_max: int = 512,
    headers: Mapping[str, str] | None = None,
) -> Generated:
    """Generates to the end."""
    generation = client.generate(
        request,
        served_model="served",
        output_tokens_max=output_tokens_max,
        generation_id="g1",
        headers=headers or {},
    )
    async with generation:
        steps = [step async for step in generation]
        return Generated(steps, generation.usage)


@asynccontextmanager
async def emulated(kind: str, **options: Any) -> AsyncIterator[tuple[str, EmulatedEngine]]:  # noqa: ANN401
    """An emulator's gRPC face that is ready: its address, and the engine behind it."""
    emulation = make_emulation(kind, EmulatorOptions(face=Face.GRPC, **options))
    async with running(emulation) as address:
        await until(lambda: emulation.engine.phase is Phase.READY, "the emulator is ready")
        yield address, emulation.engine


def archive(**files: object) -> bytes:
    """The emulators' tokenizer as a zip; a file is replaced by name, "__" for the dot, and left out for None."""
    with zipfile.ZipFile(io.BytesIO(byte_tokenizer.archive(64))) as bundle:
        contents: dict[str, object] = {name: bundle.read(name).decode() for name in bundle.namelist()}
    contents |= {name.replace("__", "."): content for name, content in files.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, content in contents.items():
            if content is not None:
                bundle.writestr(name, content if isinstance(content, str) else json.dumps(content))
    return buffer.getvalue()


@dataclass
class ScriptedEngine:
    """A service whose answers a test writes, through the published protos.

    Attributes:
        service: its name in its module.
        module: of smg-grpc-proto.
        answers: the messages of a generation. An exception aborts the call: a status, or a test's own coroutine.
        unary: answers of other methods by name; a status code aborts.
        archive: what GetTokenizer hands out. None: it is not implemented.
        digest: what it says of it. None: the truth.
        asked: the requests of `Generate`, with their metadata.
        called: other requests, by method.
    """

    service: str
    module: str
    answers: Callable[[Any], Iterable[object]] = lambda _: ()
    unary: dict[str, object] = field(default_factory=dict)
    archive: bytes | None = field(default_factory=archive)
    digest: str | None = None
    asked: list[tuple[Any, dict[str, str]]] = field(default_factory=list)
    called: dict[str, list[Any]] = field(default_factory=dict)
    tokenizers: int = 0
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pb(self) -> Any:  # noqa: ANN401
        """The published messages."""
        return load_protos(self.module)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serves; host:port."""
        server = grpc.aio.server()
        described = self.pb.DESCRIPTOR.services_by_name[self.service]
        streaming: dict[str, Streaming] = {"Generate": self._generate}
        if self.archive is not None:
            streaming["GetTokenizer"] = self._tokenizer
        unary = {
            method.name: self._answer_of(method.name)
            for method in described.methods
            if method.name in {"GetModelInfo", "Abort", *self.unary}
        }
        add_service(server, self.pb, self.service, unary, streaming)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(grace=0)

    async def _generate(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        self.asked.append((request, dict(context.invocation_metadata())))
        for answer in self.answers(request):
            if isinstance(answer, grpc.StatusCode):
                await context.abort(answer, "the prompt was: secret")
            elif isinstance(answer, asyncio.Event):
                await answer.wait()
            else:
                yield answer

    async def _tokenizer(self, _request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
        self.tokenizers += 1
        data = self.archive or b""
        digest = hashlib.sha256(data).hexdigest() if self.digest is None else self.digest
        chunk = load_protos("common_pb2").GetTokenizerChunk
        half = len(data) // 2
        yield chunk(data=data[:half])
        yield chunk(data=data[half:], sha256=digest)

    def _answer_of(self, method: str) -> Callable[[Any, Any], Any]:
        default = {"GetModelInfo": "GetModelInfoResponse", "Abort": "AbortResponse"}.get(method, "")

        async def answer(request: Any, context: Any) -> Any:  # noqa: ANN401
            self.called.setdefault(method, []).append(request)
            found = self.unary.get(method)
            if isinstance(found, grpc.StatusCode):
                await context.abort(found, "")
            if callable(found):
                return found(request)
            return getattr(self.pb, default)() if found is None else found

        return answer
