"""A parsed request: the canonical message, and how its client wants the answer written."""

from dataclasses import dataclass
from enum import Enum, unique

from enginehouse.v1 import inference_pb2


@unique
class EmbeddingEncoding(Enum):
    """How a vector is written in JSON."""

    # A list of numbers.
    FLOAT = "float"
    # Little-endian 32-bit floats in base64, which OpenAI's SDKs ask for unasked.
    BASE64 = "base64"


@dataclass(frozen=True, slots=True)
class GenerateCall:
    """A generation.

    Attributes:
        stream: the client wants pieces as they come.
        include_usage: the client wants the usage at the end of a stream.
    """

    request: inference_pb2.GenerateRequest
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True)
class EmbedCall:
    """Embeddings."""

    request: inference_pb2.EmbedRequest
    encoding: EmbeddingEncoding


@dataclass(frozen=True, slots=True)
class RerankCall:
    """A ranking. `return_documents`: the client wants its documents back beside their scores."""

    request: inference_pb2.RerankRequest
    return_documents: bool
