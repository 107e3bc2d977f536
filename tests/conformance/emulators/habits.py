"""What tells the engines apart, as their documentation and sources say; the tests hold the emulators to it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any


class Breaks(Enum):
    """How a stream ends that breaks."""

    ERROR_AND_DONE = auto()
    ERROR_ALONE = auto()
    CUT = auto()
    SILENT = auto()
    """As a stream ends that does not break, but without [DONE]."""


class Term(Enum):
    """What becomes of a stream when SIGTERM comes."""

    DRAINS = auto()
    BREAKS = auto()


@dataclass(frozen=True)
class Habits:
    """One engine.

    Attributes:
        loading: the status of /health while the model is loaded, or None if the connection is refused.
        overloaded: the status for a request too many.
        broken: the status of a unary answer that breaks.
        breaks: how a stream ends that breaks.
        error_message: the message in an engine's error, in a body or in a frame.
        shows_stop: the stop sequence is left in the text.
        stop_word: the finish reason for a stop sequence.
        running, waiting: metrics, where there are some.
        term: what SIGTERM does to a stream by default; `term_breaks` is how, if it breaks it.
        refuses_model: the status for a model that is not served; None: any name will do.
        refuses_stream_in_stream: a stream too many is refused under status 200.
    """

    kind: str
    loading: int | None
    overloaded: int
    broken: int
    breaks: Breaks
    error_message: Callable[[Any], object]
    running: str | None
    waiting: str | None
    term: Term
    term_breaks: Breaks = Breaks.CUT
    refuses_model: int | None = None
    shows_stop: bool = False
    stop_word: str = "stop"
    metrics_path: str = "/metrics"
    refuses_stream_in_stream: bool = False


def _openai(body: dict[str, Any]) -> object:
    return body["error"]["message"]


def _tgi(body: dict[str, Any]) -> object:
    error = body["error"]
    return error["message"] if isinstance(error, dict) else error


def _flat(body: dict[str, Any]) -> object:
    return body["error"]["message"] if "error" in body else body["message"]


def _text(body: dict[str, Any]) -> object:
    return body["error"]


HABITS = {
    habits.kind: habits
    for habits in (
        Habits(
            "vllm",
            loading=None,
            overloaded=503,
            broken=500,
            breaks=Breaks.ERROR_AND_DONE,
            error_message=_openai,
            running="vllm:num_requests_running",
            waiting="vllm:num_requests_waiting",
            term=Term.BREAKS,
            term_breaks=Breaks.ERROR_AND_DONE,
            refuses_model=404,
        ),
        Habits(
            "tgi",
            loading=None,
            overloaded=429,
            broken=424,
            breaks=Breaks.ERROR_AND_DONE,
            error_message=_tgi,
            running="tgi_batch_current_size",
            waiting="tgi_queue_size",
            term=Term.DRAINS,
            shows_stop=True,
            stop_word="stop_sequence",
            refuses_stream_in_stream=True,
        ),
        Habits(
            "sglang",
            loading=503,
            overloaded=503,
            broken=500,
            breaks=Breaks.ERROR_AND_DONE,
            error_message=_flat,
            running="sglang:num_running_reqs",
            waiting="sglang:num_queue_reqs",
            term=Term.DRAINS,
            refuses_stream_in_stream=True,
        ),
        Habits(
            "llama-cpp",
            loading=503,
            overloaded=503,
            broken=500,
            breaks=Breaks.ERROR_ALONE,
            error_message=_openai,
            running="llamacpp:requests_processing",
            waiting="llamacpp:requests_deferred",
            term=Term.BREAKS,
        ),
        Habits(
            "mlx",
            loading=200,
            overloaded=404,
            broken=404,
            breaks=Breaks.SILENT,
            error_message=_text,
            running=None,
            waiting=None,
            term=Term.BREAKS,
            term_breaks=Breaks.SILENT,
            refuses_model=404,
        ),
        Habits(
            "tensorrt-llm",
            loading=None,
            overloaded=503,
            broken=400,
            breaks=Breaks.CUT,
            error_message=_flat,
            running=None,
            waiting=None,
            term=Term.DRAINS,
        ),
    )
}


@dataclass(frozen=True)
class Heard:
    """A stream as a client heard it.

    Attributes:
        frames: the JSON of the data frames, without [DONE]. A frame that is no JSON is a string.
        is_cut: the transport broke.
    """

    frames: list[Any]
    is_done: bool
    is_cut: bool

    @property
    def text(self) -> str:
        """The chat content, or the completion's text, of all chunks."""
        return "".join(_piece(frame) for frame in self.frames if isinstance(frame, dict))

    @property
    def usage(self) -> dict[str, int]:
        """The last usage that came."""
        found: dict[str, int] = [frame["usage"] for frame in self.frames if frame.get("usage")][-1]
        return found

    @property
    def finish_reasons(self) -> list[str]:
        """The finish reasons, in order."""
        choices = [choice for frame in self.frames if isinstance(frame, dict) for choice in frame.get("choices", ())]
        return [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]

    @property
    def errors(self) -> list[Any]:
        """The frames that are errors."""
        return [frame for frame in self.frames if isinstance(frame, dict) and "error" in frame]


def _piece(frame: dict[str, Any]) -> str:
    pieces = [choice.get("delta", choice) for choice in frame.get("choices", ())]
    return "".join(piece.get("content") or piece.get("text") or "" for piece in pieces)


def parse_frames(raw: bytes, is_cut: bool) -> Heard:
    """The data frames of a stream's bytes; comments are skipped."""
    frames: list[Any] = []
    is_done = False
    for block in raw.decode(errors="replace").split("\n\n"):
        data = block.removeprefix("data:").strip()
        if not block.startswith("data:"):
            continue
        if data == "[DONE]":
            is_done = True
            continue
        try:
            frames.append(json.loads(data))
        except ValueError:
            frames.append(data)
    return Heard(frames, is_done, is_cut)
