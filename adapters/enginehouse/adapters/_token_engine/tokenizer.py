"""An engine's tokenizer at work: conversations into token ids, token ids into text."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from enginehouse.adapters._fields import unsupported
from enginehouse.adapters._json import loads
from enginehouse.adapters._token_engine.bundle import TokenizerFiles
from enginehouse.adapters._token_engine.template import ChatTemplate
from enginehouse.contract import DependencyError, EngineError
from enginehouse.v1 import inference_pb2

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ROLES: Mapping[inference_pb2.Role.ValueType, str] = {
    inference_pb2.ROLE_SYSTEM: "system",
    inference_pb2.ROLE_USER: "user",
    inference_pb2.ROLE_ASSISTANT: "assistant",
}
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_DEFAULT_TEMPLATE = "default"
_KEPT_MAX = 4


class EngineTokenizer:
    """One tokenizer. It is the same for everybody and holds nothing of a request. Blocking; call it in a thread.

    Args:
        files: that it is made of.
        engine: for messages.

    Raises:
        EngineError: the files are no tokenizer that can be used here.
        DependencyError: the library is not installed.
    """

    def __init__(self, files: TokenizerFiles, engine: str) -> None:
        self._engine = engine
        self._tokenizer = _load(files.tokenizer, engine)
        config = loads(files.config)
        members = config if isinstance(config, dict) else {}
        source = _template(files, members)
        self._template = ChatTemplate(source, _special_tokens(members), engine) if source else None

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt, with what the tokenizer itself puts before one."""
        return list(self._tokenizer.encode(text).ids)

    def encode_conversation(self, conversation: inference_pb2.Conversation) -> list[int]:
        """Ids of a conversation as the model's chat template writes it, up to where the assistant begins.

        Raises:
            RequestError: the model has no chat template, or its template refuses the conversation.
        """
        if self._template is None:
            advice = f"the model on the engine {self._engine} has no chat template; send a prompt"
            raise unsupported("conversation", advice)
        text = self._template.render([_message(message) for message in conversation.messages])
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)  # the template has written them

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out; a character that is not whole ends it as U+FFFD."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text

    def token_text(self, token_id: int) -> str:
        """Text of one token by itself, special or not."""
        text: str = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return text


class TokenizerShelf:
    """Tokenizers that were loaded, by their key: to load one takes up to a second of a core."""

    def __init__(self, kept_max: int = _KEPT_MAX) -> None:
        self._kept: OrderedDict[str, EngineTokenizer] = OrderedDict()
        self._kept_max = kept_max

    async def get(self, key: str, load: Callable[[], EngineTokenizer]) -> EngineTokenizer:
        """The tokenizer of that key, loaded in a thread unless it is here.

        Args:
            key: says all of what it is made of.
            load: makes it. Blocking.

        Raises:
            EngineError: as `EngineTokenizer`.
            DependencyError: as `EngineTokenizer`.
        """
        found = self._kept.get(key)
        if found is None:
            found = await asyncio.to_thread(load)
        self._kept[key] = found
        self._kept.move_to_end(key)
        while len(self._kept) > self._kept_max:
            self._kept.popitem(last=False)
        return found


def _load(content: bytes, engine: str) -> "Tokenizer":
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise DependencyError(
            f"the engine {engine} is asked in tokens, which needs more: pip install 'enginehouse[grpc-engines]'"
        ) from None
    if not content:
        raise EngineError(f"the engine {engine} hands out no tokenizer.json; serve this model with the api openai")
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except ValueError as error:
        message = f"the engine {engine} hands out a tokenizer.json that cannot be read: {type(error).__name__}"
        raise EngineError(message) from None
    # Models that embed bring both along, for training in batches: a text would be cut, or grow, without a word.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _template(files: TokenizerFiles, config: Mapping[str, object]) -> str:
    """The chat template from wherever it is; of several the one for chats without tools. Empty: there is none."""
    if files.template:
        return files.template.decode(errors="replace")
    older = loads(files.template_json) if files.template_json else None
    found = older.get("chat_template") if isinstance(older, dict) else None
    found = found or config.get("chat_template")
    if isinstance(found, list):
        named = {str(one.get("name")): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get(_DEFAULT_TEMPLATE)
    return found if isinstance(found, str) else ""


def _special_tokens(config: Mapping[str, object]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _SPECIAL_TOKENS:
        token = config.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            found[name] = text
    return found


def _message(message: inference_pb2.Message) -> dict[str, str]:
    members = {"role": _ROLES[message.role], "content": _joined(part.text for part in message.parts)}
    if reasoning := "".join(part.reasoning for part in message.parts):
        members["reasoning_content"] = reasoning
    if message.name:
        members["name"] = message.name
    return members


def _joined(texts: Iterable[str]) -> str:
    """Texts of one message, a line each, as vLLM joins them for templates that know text alone."""
    return "\n".join(text for text in texts if text)
