"""Answers of TGI's own routes, as canonical responses."""

from collections.abc import Iterator, Mapping

from enginehouse.adapters._fields import INT32_MAX
from enginehouse.adapters._json import loads
from enginehouse.adapters._stops import StopTrimmer
from enginehouse.adapters.http import error_from_payload, find_error
from enginehouse.adapters.sse import SseEvent
from enginehouse.contract import EngineError, Reason
from enginehouse.v1 import common_pb2, inference_pb2

_ENGINE = "TGI"
_OK = 200
_FINISH_REASONS: Mapping[str, inference_pb2.FinishReason.ValueType] = {
    "eos_token": inference_pb2.FINISH_REASON_STOP,
    "stop_sequence": inference_pb2.FINISH_REASON_STOP,
    "length": inference_pb2.FINISH_REASON_LENGTH,
}


class StreamReader:
    """Reads one generation: one event for each token, the last of which tells the count. There is no ``[DONE]``.

    Args:
        generation_id: written into every response.
        request: that was asked; its model is written into every response.

    Attributes:
        done: the last event has come.
        prompt_tokens: as counted before; None when nobody did.
    """

    def __init__(self, generation_id: str, request: inference_pb2.GenerateRequest) -> None:
        self.done = False
        self.prompt_tokens: int | None = None
        self._generation_id = generation_id
        self._request = request
        self._trimmer = StopTrimmer(request.sampling.stop)
        self._tokens_passed = 0
        self._final: common_pb2.Usage | None = None

    @property
    def began(self) -> bool:
        """Whether the engine has generated anything."""
        return self._tokens_passed > 0

    @property
    def usage(self) -> common_pb2.Usage:
        """The engine's count, or the tokens that have passed."""
        if self._final is not None:
            return self._final
        if self.prompt_tokens is None:
            return common_pb2.Usage(method=common_pb2.USAGE_METHOD_UPPER_BOUND)
        return common_pb2.Usage(
            input_tokens=self.prompt_tokens,
            output_tokens=self._tokens_passed,
            method=common_pb2.USAGE_METHOD_ADAPTER,
        )

    def read_event(self, event: SseEvent) -> Iterator[inference_pb2.GenerateResponse]:
        """The responses in one event.

        Raises:
            EngineError: the event is an error, which it is under status 200 too, or nothing that TGI says.
            RequestError: CONTEXT_TOO_LONG, when that is the engine's error.
        """
        frame = loads(event.data)
        if not isinstance(frame, dict):
            raise self._failure("sent an event that is not a JSON object")
        if (error := find_error(frame)) is not None:
            raise error_from_payload(_ENGINE, _OK, error)
        token = frame.get("token")
        if not isinstance(token, dict):
            raise self._failure("sent an event without a token")
        self._tokens_passed += 1
        details = frame.get("details")
        end = details if isinstance(details, dict) else None
        try:
            delta = self._delta(token, frame.get("top_tokens"))
            if end is not None:
                delta.text += self._trimmer.rest()
        except UnicodeEncodeError:
            raise self._failure("sent text that is not Unicode") from None
        if delta.text or delta.logprobs or delta.token_ids:
            yield self._response(delta=delta)
        if end is not None:
            yield self._response(choice_finished=self._end(end))

    def read_whole(self, body: bytes) -> Iterator[inference_pb2.GenerateResponse]:
        """Nothing: a stream was asked for.

        Raises:
            EngineError: always.
        """
        raise self._failure(f"answered a stream with {len(body)} bytes that are none")

    def finish(self) -> inference_pb2.GenerateResponse:
        """The last response.

        Raises:
            EngineError: the last event has not come: the stream ended early.
        """
        if self._final is None:
            raise self._failure("ended early: its last token has no details")
        return self._response(finished=inference_pb2.Finished(usage=self._final))

    def _delta(self, token: Mapping[str, object], top: object) -> inference_pb2.Delta:
        is_special = token.get("special") is True
        text = token.get("text")
        delta = inference_pb2.Delta(text="" if is_special or not isinstance(text, str) else self._trimmer.feed(text))
        if self._request.sampling.HasField("top_logprobs") and not is_special:
            read = _logprob(token)
            read.top.extend(_logprob(item) for item in (top if isinstance(top, list) else ()) if isinstance(item, dict))
            delta.logprobs.append(read)
        token_id = token.get("id")
        if self._request.return_token_ids and isinstance(token_id, int) and 0 <= token_id <= INT32_MAX:
            delta.token_ids.append(token_id)
        return delta

    def _end(self, details: Mapping[str, object]) -> inference_pb2.ChoiceFinished:
        reason = details.get("finish_reason")
        known = _FINISH_REASONS.get(reason) if isinstance(reason, str) else None
        if known is None:
            raise self._failure("stopped for a reason that is neither length, eos_token nor stop_sequence")
        if self._trimmer.found:
            known = inference_pb2.FINISH_REASON_STOP
        read, generated = details.get("input_length"), details.get("generated_tokens")
        if not isinstance(generated, int) or not isinstance(read, int):
            raise self._failure("ended without a count of its tokens")
        self._final = common_pb2.Usage(
            input_tokens=read, output_tokens=generated, method=common_pb2.USAGE_METHOD_ENGINE
        )
        self.done = True
        return inference_pb2.ChoiceFinished(reason=known, stop_sequence=self._trimmer.found)

    def _response(
        self,
        *,
        delta: inference_pb2.Delta | None = None,
        choice_finished: inference_pb2.ChoiceFinished | None = None,
        finished: inference_pb2.Finished | None = None,
    ) -> inference_pb2.GenerateResponse:
        return inference_pb2.GenerateResponse(
            id=self._generation_id,
            model=self._request.model,
            delta=delta,
            choice_finished=choice_finished,
            finished=finished,
        )

    def _failure(self, what: str) -> EngineError:
        return EngineError(f"the engine {_ENGINE} {what}", Reason.ENGINE_FAILED, metadata={"engine": _ENGINE})


def _logprob(token: Mapping[str, object]) -> inference_pb2.TokenLogprob:
    text, logprob = token.get("text"), token.get("logprob")
    shown = text if isinstance(text, str) else ""
    return inference_pb2.TokenLogprob(
        token=shown,
        logprob=logprob if isinstance(logprob, int | float) else 0.0,
        token_bytes=shown.encode(),
    )
