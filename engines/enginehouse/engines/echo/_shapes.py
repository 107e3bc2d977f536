"""The JSON of OpenAI's chat and completion answers, whole and in chunks."""

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from enginehouse.engines.echo._generation import FinishReason, Generation

Json = dict[str, object]
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one request so far."""

    prompt: int
    completion: int

    @property
    def usage(self) -> Json:
        """OpenAI's usage member."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(frozen=True)
class Shape(ABC):
    """One answer: its id, and how its parts look."""

    prefix: ClassVar[str]
    whole: ClassVar[str]
    part: ClassVar[str]

    model: str
    number: int = field(default_factory=lambda: next(_NUMBERS))
    created: int = field(default_factory=lambda: int(time.time()))

    def unary(self, generations: Sequence[Generation], tokens: Tokens) -> Json:
        """The whole answer."""
        choices = [
            {"index": index, **self._whole_choice(generation.text), "finish_reason": generation.finish_reason}
            for index, generation in enumerate(generations)
        ]
        return {**self._head(self.whole), "choices": choices, "usage": tokens.usage}

    @abstractmethod
    def opening(self, index: int) -> Json | None:
        """The chunk that opens a choice, if there is one."""

    def token(self, index: int, piece: str) -> Json:
        """The chunk of one token."""
        return self._chunk(index, self._part(piece), None)

    def closing(self, index: int, finish_reason: FinishReason) -> Json:
        """The chunk that ends a choice."""
        return self._chunk(index, self._part(None), finish_reason)

    def usage_chunk(self, tokens: Tokens) -> Json:
        """The last chunk, for those who asked for it: usage and no choices."""
        return {**self._head(self.part), "choices": [], "usage": tokens.usage}

    def _head(self, kind: str) -> Json:
        return {"id": f"{self.prefix}-{self.number}", "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, part: Json, finish_reason: FinishReason | None) -> Json:
        choice = {"index": index, **part, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head(self.part), "choices": [choice]}

    @abstractmethod
    def _whole_choice(self, text: str) -> Json: ...

    @abstractmethod
    def _part(self, piece: str | None) -> Json: ...


class ChatShape(Shape):
    """/v1/chat/completions."""

    prefix = "chatcmpl"
    whole = "chat.completion"
    part = "chat.completion.chunk"

    def opening(self, index: int) -> Json:
        """The chunk that names the role."""
        return self._chunk(index, {"delta": {"role": "assistant", "content": ""}}, None)

    def _whole_choice(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text}, "logprobs": None}

    def _part(self, piece: str | None) -> Json:
        return {"delta": {} if piece is None else {"content": piece}}


class CompletionShape(Shape):
    """/v1/completions."""

    prefix = "cmpl"
    whole = "text_completion"
    part = "text_completion"

    def opening(self, index: int) -> None:
        """There is none."""

    def _whole_choice(self, text: str) -> Json:
        return {"text": text, "logprobs": None}

    def _part(self, piece: str | None) -> Json:
        return {"text": piece or ""}
