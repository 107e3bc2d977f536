"""What llama.cpp's server lacks, in whatever program it is."""

from collections.abc import Mapping
from typing import ClassVar

from tests.conformance.engines.columns import Column
from tests.conformance.engines.subject import Refusal, RefusedBy, Subject


class LlamaCpp(Subject):
    """llama.cpp's server."""

    other_names = ("llama.cpp",)
    refused: ClassVar[Mapping[Column, Refusal]] = {
        Column.TOOLS: Refusal("llama.cpp drops tools silently where the chat template has none", RefusedBy.ROUTER),
        Column.CHOICES: Refusal("llama.cpp counts one of several choices alone", RefusedBy.ROUTER),
        Column.EMBEDDINGS: Refusal("llama.cpp embeds only when it is started for nothing else"),
        Column.RERANK: Refusal("llama.cpp ranks only when it is started for nothing else"),
    }
    parallel = 4
