"""What engines have in common that embed and do not generate."""

from collections.abc import Mapping

from tests.conformance.engines.columns import Column
from tests.conformance.engines.subject import Refusal, Running, Subject

GENERATION_COLUMNS = (
    Column.UNARY,
    Column.STREAM,
    Column.USAGE,
    Column.STOP,
    Column.DETERMINISM,
    Column.TOOLS,
    Column.SCHEMA,
    Column.LOGPROBS,
    Column.CHOICES,
    Column.OTHER_FEATURES,
    Column.CANCEL,
)


def no_generation(reason: str) -> Mapping[Column, Refusal]:
    """The refusals of all that is about generation."""
    return dict.fromkeys(GENERATION_COLUMNS, Refusal(reason))


class Embeds(Subject):
    """An engine for embeddings, by OpenAI's route."""

    async def is_refused(self, running: Running) -> bool:
        """Texts that are none."""
        status, _ = await running.answer("/v1/embeddings", {"model": running.engine.model, "input": {"no": "text"}})
        return 400 <= status < 500
