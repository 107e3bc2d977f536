"""Engines that read and write token ids over gRPC: what vLLM's and TensorRT-LLM's services have in common.

Neither service knows conversations or text. So the engine's own tokenizer is fetched from it and used here: the model's
chat template is rendered, the prompt is encoded, and what comes back is decoded and cut at stop sequences.
"""

from enginehouse.adapters._token_engine.answer import ChoiceEnd, TokenChance, TokenPiece
from enginehouse.adapters._token_engine.channel import EngineChannel
from enginehouse.adapters._token_engine.client import TokenEngine
from enginehouse.adapters._token_engine.dialect import (
    AskedTokens,
    ModelFacts,
    SamplingDefaults,
    TokenAnswer,
    TokenDialect,
)
from enginehouse.adapters._token_engine.generation import TokenGeneration

__all__ = [
    "AskedTokens",
    "ChoiceEnd",
    "EngineChannel",
    "ModelFacts",
    "SamplingDefaults",
    "TokenAnswer",
    "TokenChance",
    "TokenDialect",
    "TokenEngine",
    "TokenGeneration",
    "TokenPiece",
]
