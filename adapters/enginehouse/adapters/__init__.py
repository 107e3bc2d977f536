"""Engine dialects and client dialects, translated through one canonical request.

`dialects` finds the door that a request came through, and `engine` is the face that every engine has. Each dialect is a
package, its files named alike: `inspection`, `parse`, `encode`, `stream` and `errors` for clients (`openai`,
`anthropic`, `grpc`); `write`, `read` and `client` for engines (`openai`, `tgi` and the engines' gRPC services). `http`
is what engines with HTTP have in common, `lacks` what engines cannot do.
"""

from enginehouse.adapters.calls import EmbedCall, EmbeddingEncoding, GenerateCall, RerankCall
from enginehouse.adapters.collect import CollectedAnswer, CollectedChoice, Collector, collect
from enginehouse.adapters.dialects import (
    ENDPOINTS,
    Endpoint,
    dialect_of_path,
    encode_error,
    encode_stream_error,
    find_endpoint,
)
from enginehouse.adapters.errors import ErrorAnswer
from enginehouse.adapters.head import AnswerHead
from enginehouse.adapters.hints import combine_hints, hints_from_headers, hints_from_member
from enginehouse.adapters.inspection import Inspection
from enginehouse.adapters.splices import (
    BodyLayout,
    MemberSpan,
    Splice,
    add_members,
    apply,
    cap_output,
    combine,
    remove_hints,
    set_model,
)
from enginehouse.adapters.sse import EventCutter, SseEvent, SseParser, encode_event
from enginehouse.adapters.usage import UsageMeter, UsageScope

__all__ = [
    "ENDPOINTS",
    "AnswerHead",
    "BodyLayout",
    "CollectedAnswer",
    "CollectedChoice",
    "Collector",
    "EmbedCall",
    "EmbeddingEncoding",
    "Endpoint",
    "ErrorAnswer",
    "EventCutter",
    "GenerateCall",
    "Inspection",
    "MemberSpan",
    "RerankCall",
    "Splice",
    "SseEvent",
    "SseParser",
    "UsageMeter",
    "UsageScope",
    "add_members",
    "apply",
    "cap_output",
    "collect",
    "combine",
    "combine_hints",
    "dialect_of_path",
    "encode_error",
    "encode_event",
    "encode_stream_error",
    "find_endpoint",
    "hints_from_headers",
    "hints_from_member",
    "remove_hints",
    "set_model",
]
