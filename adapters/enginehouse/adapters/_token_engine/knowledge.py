"""What has to be known of an engine before it can be asked in token ids, learned once."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from enginehouse.adapters._token_engine.bundle import fetch_archive, read_folder, unpack
from enginehouse.adapters._token_engine.channel import EngineChannel
from enginehouse.adapters._token_engine.dialect import ModelFacts, TokenDialect
from enginehouse.adapters._token_engine.tokenizer import EngineTokenizer, TokenizerShelf
from enginehouse.contract import EngineError
from enginehouse.v1 import inference_pb2

# An engine that hands no tokenizer out says so in one of these.
_HANDS_OUT_NONE = frozenset({"UNIMPLEMENTED", "INTERNAL", "FAILED_PRECONDITION", "NOT_FOUND"})
_SHELF = TokenizerShelf()


@dataclass(frozen=True, slots=True)
class Knowledge:
    """An engine's tokenizer, and what it says of its model."""

    tokenizer: EngineTokenizer
    facts: ModelFacts

    async def encode(self, request: inference_pb2.GenerateRequest | inference_pb2.CountTokensRequest) -> Sequence[int]:
        """The prompt in tokens. In a thread: a long one takes tens of milliseconds.

        Raises:
            RequestError: the model has no chat template, or its template refuses the conversation.
        """
        match request.WhichOneof("input"):
            case "conversation":
                return await asyncio.to_thread(self.tokenizer.encode_conversation, request.conversation)
            case "prompt":
                return await self.encode_text(request.prompt)
        return list(request.prompt_tokens.ids) if isinstance(request, inference_pb2.GenerateRequest) else []

    async def encode_text(self, text: str) -> Sequence[int]:
        """A text in tokens."""
        return await asyncio.to_thread(self.tokenizer.encode_prompt, text)


class Learning:
    """Asks the engine at the first use, and again after a failure."""

    def __init__(self, dialect: TokenDialect, channel: EngineChannel) -> None:
        self._dialect = dialect
        self._channel = channel
        self._known: Knowledge | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> Knowledge:
        """What is known of the engine.

        Raises:
            EngineError: it was not reached, or its tokenizer cannot be had.
            DependencyError: the tokenizer library is not installed.
        """
        async with self._lock:
            if self._known is None:
                self._known = await self._learn()
            return self._known

    def forget(self) -> None:
        """Asks again at the next use: the engine failed, so another one may be there by then."""
        self._known = None

    async def _learn(self) -> Knowledge:
        facts = await self._dialect.facts(self._channel)
        return Knowledge(await self._tokenizer(facts), facts)

    async def _tokenizer(self, facts: ModelFacts) -> EngineTokenizer:
        """The tokenizer that the engine hands out. One that hands out none says where it is, perhaps on this host.

        TensorRT-LLM's own server has the method in its protos alone (source: 1.3, `grpc/smg/servicer.py`), and vLLM's
        fails for a model that it was given by its name on a hub.
        """
        engine, folder = self._dialect.engine, facts.tokenizer_folder
        try:
            archive = await fetch_archive(self._channel, self._dialect.method("GetTokenizer"))
        except EngineError as error:
            if error.metadata.get("engine_status") not in _HANDS_OUT_NONE:
                raise
            if folder is None or not await asyncio.to_thread(folder.is_dir):
                raise EngineError(
                    f"the engine {engine} hands out no tokenizer, and its model is no folder of this host; start it on "
                    "a local folder, or serve this model with the api openai",
                    error.reason,
                ) from None
            # Its files may change under their names, so what is in them is read at each learning.
            files = await asyncio.to_thread(read_folder, folder, engine)
            return await asyncio.to_thread(EngineTokenizer, files, engine)
        return await _SHELF.get(
            f"{engine} {archive.sha256}", lambda: EngineTokenizer(unpack(archive.data, engine), engine)
        )
