"""Answers of an engine with OpenAI's HTTP API, as canonical responses."""

import json
from collections.abc import Iterator, Mapping, Sequence

from enginehouse.adapters._fields import INT32_MAX
from enginehouse.adapters._json import loads
from enginehouse.adapters._stops import StopTrimmer
from enginehouse.adapters.http import error_from_payload, find_error
from enginehouse.adapters.openai.logprobs import read_logprobs
from enginehouse.adapters.openai.quirks import CallEnd, OpenAIQuirks, RunningUsage, StopText
from enginehouse.adapters.sse import SseEvent
from enginehouse.adapters.usage import UsageTally, read_count
from enginehouse.contract import EngineError, Reason
from enginehouse.v1 import common_pb2, inference_pb2

_OK = 200
_DONE = "[DONE]"
_ERROR_EVENT = "error"
_END_TOKEN = "eos_token"  # noqa: S105 (a reason to finish)
_FINISH_REASONS: Mapping[str, inference_pb2.FinishReason.ValueType] = {
    "stop": inference_pb2.FINISH_REASON_STOP,
    _END_TOKEN: inference_pb2.FINISH_REASON_STOP,  # TGI's words
    "stop_sequence": inference_pb2.FINISH_REASON_STOP,
    "length": inference_pb2.FINISH_REASON_LENGTH,
    "tool_calls": inference_pb2.FINISH_REASON_TOOL_CALLS,
    "function_call": inference_pb2.FINISH_REASON_TOOL_CALLS,
    "content_filter": inference_pb2.FINISH_REASON_CONTENT_FILTER,
}


class AnswerReader:
    """Reads one generation, streamed or whole, and holds what is known of its usage at every moment.

    Args:
        generation_id: written into every response.
        model: the name that the client asked for, written into every response.
        choices: how many were asked for.
        quirks: the engine's.
        stop: the stop sequences that were asked for.

    Attributes:
        done: nothing that still comes means anything.
        tokens_passed: chunks that each hold one token, where the engine's do.
        prompt_tokens: set by whoever counts them for an answer that was cut before the engine did.
    """

    def __init__(
        self, *, generation_id: str, model: str, choices: int, quirks: OpenAIQuirks, stop: Sequence[str] = ()
    ) -> None:
        self.generation_id = generation_id
        self.model = model
        self.done = False
        self.tokens_passed = 0
        self.prompt_tokens: int | None = None
        self._began = False
        self._quirks = quirks
        self._engine = quirks.engine
        self._choices = choices
        self._finished: set[int] = set()
        self._tally = UsageTally(quirks.usage_scope)
        self._usage_lost = False
        is_left = quirks.stop_text in (StopText.LEFT, StopText.UNSENT)
        self._trimmers = [StopTrimmer(stop if is_left else ()) for _ in range(choices)]
        self._calls: dict[tuple[int, int], inference_pb2.ToolCall] = {}

    def read_event(self, event: SseEvent) -> list[inference_pb2.GenerateResponse]:
        """The responses in one event of a stream.

        Raises:
            EngineError: the event is an error, or nothing that this dialect knows.
            RequestError: CONTEXT_TOO_LONG, when that is the engine's error.
        """
        if event.data.strip() == _DONE:
            self.done = True
            return []
        frame = loads(event.data)
        if event.name == _ERROR_EVENT:
            found = find_error(frame) if isinstance(frame, dict) else None
            raise error_from_payload(self._engine, _OK, frame if found is None else found)
        if not isinstance(frame, dict):
            raise self._failure("sent an event that is not a JSON object")
        return self._read_frame(frame, "delta")

    def read_whole(self, body: bytes) -> list[inference_pb2.GenerateResponse]:
        """The responses in an answer that was not streamed.

        Raises:
            EngineError: as `read_event`.
            RequestError: as `read_event`.
        """
        answer = loads(body)
        if not isinstance(answer, dict):
            raise self._failure("sent an answer that is not a JSON object")
        self._usage_lost = not self._tally.counts_whole_answer(self._choices)
        responses = self._read_frame(answer, "message")
        self.done = True
        return responses

    def finish(self) -> inference_pb2.GenerateResponse:
        """The last response, once the engine has nothing more to say.

        Raises:
            EngineError: a choice has no finish reason: the stream ended early, with ``[DONE]`` or without.
        """
        if len(self._finished) < self._choices:
            raise self._failure(f"ended early: {len(self._finished)} of {self._choices} choices finished")
        return self._response(finished=inference_pb2.Finished(usage=self._usage(common_pb2.USAGE_METHOD_ENGINE)))

    @property
    def began(self) -> bool:
        """Whether the engine has generated, or counted, anything."""
        return self._began or self._tally.known

    @property
    def usage(self) -> common_pb2.Usage:
        """The running count, for a generation that is cut now; UPPER_BOUND when nobody has counted."""
        if self.prompt_tokens is not None and not self._tally.known:
            return common_pb2.Usage(
                input_tokens=self.prompt_tokens,
                output_tokens=self.tokens_passed,
                method=common_pb2.USAGE_METHOD_ADAPTER,
            )
        return self._usage(common_pb2.USAGE_METHOD_ENGINE_PARTIAL)

    @property
    def lacks_count(self) -> bool:
        """Whether tokens have passed and the engine has not counted any."""
        return self.tokens_passed > 0 and not self._tally.known

    def _usage(self, method: common_pb2.UsageMethod.ValueType) -> common_pb2.Usage:
        if self._usage_lost or not self._tally.known:
            return common_pb2.Usage(method=common_pb2.USAGE_METHOD_UPPER_BOUND)
        return self._tally.usage(method)

    def _read_frame(self, frame: dict[str, object], content_member: str) -> list[inference_pb2.GenerateResponse]:
        if (error := find_error(frame)) is not None:
            raise error_from_payload(self._engine, _OK, error)
        choices = frame.get("choices")
        frames = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        if frames and self._quirks.running_usage is RunningUsage.ONE_PER_CHUNK:
            self.tokens_passed += 1
        if count := read_count(frame):
            if len(frames) == 1 and content_member == "delta":
                self._tally.choice(self._index(frames[0]), count)
            else:
                self._tally.whole(count)
        try:
            return [response for choice in frames for response in self._read_choice(choice, content_member)]
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write and no message can hold
            raise self._failure("sent text that is not Unicode") from None

    def _index(self, choice: Mapping[str, object]) -> int:
        index = choice.get("index", 0)
        if not isinstance(index, int) or not 0 <= index < self._choices:
            raise self._failure(f"sent a choice that was not asked for; asked for {self._choices}")
        return index

    def _read_choice(
        self, choice: Mapping[str, object], content_member: str
    ) -> Iterator[inference_pb2.GenerateResponse]:
        index = self._index(choice)
        content = choice.get(content_member)
        delta = _delta(index, content if isinstance(content, dict) else {"content": choice.get("text")})
        read_logprobs(choice.get("logprobs"), delta)
        delta.token_ids.extend(_ids(choice.get("token_ids")))
        reason = choice.get("finish_reason")
        trimmer = self._trimmers[index]
        if reason == _END_TOKEN:
            delta.text = ""  # TGI's completions show the token itself
        if delta.text:
            delta.text = trimmer.feed(delta.text)
        if reason:
            delta.text += trimmer.rest()
        self._name_calls_once(delta)
        if delta.text or delta.reasoning or delta.tool_calls or delta.logprobs or delta.token_ids:
            if index in self._finished:
                raise self._failure("sent more of a choice after its finish reason")
            yield self._response(delta=delta)
        if reason and index not in self._finished:
            self._finished.add(index)
            self._tally.finished(index)
            # vLLM names the stop sequence, or a token's id, under the first name; SGLang under the second.
            stop = trimmer.found or choice.get("stop_reason") or choice.get("matched_stop")
            yield self._response(choice_finished=self._end(index, reason, stop))

    def _name_calls_once(self, delta: inference_pb2.Delta) -> None:
        """Takes the id and the name out of later pieces of a call: TGI repeats the id, and SDKs would join them."""
        for piece in delta.tool_calls:
            said = self._calls.setdefault((delta.choice, piece.index), inference_pb2.ToolCall())
            piece.id, said.id = "" if said.id else piece.id, said.id or piece.id
            piece.name, said.name = "" if said.name else piece.name, said.name or piece.name

    def _end(self, index: int, reason: object, stop: object) -> inference_pb2.ChoiceFinished:
        known = _FINISH_REASONS.get(reason) if isinstance(reason, str) else None
        if known is None:  # "abort", "error" and their like: whatever it is, it is no end that was asked for
            raise self._failure("stopped a choice for a reason that is neither stop, length nor tool calls")
        if self._trimmers[index].found:
            known = inference_pb2.FINISH_REASON_STOP
        elif known == inference_pb2.FINISH_REASON_STOP and self._quirks.call_end is CallEnd.STOP:
            called = any(choice == index for choice, _ in self._calls)
            known = inference_pb2.FINISH_REASON_TOOL_CALLS if called else known
        return inference_pb2.ChoiceFinished(
            choice=index, reason=known, stop_sequence=stop if isinstance(stop, str) else ""
        )

    def _response(
        self,
        *,
        delta: inference_pb2.Delta | None = None,
        choice_finished: inference_pb2.ChoiceFinished | None = None,
        finished: inference_pb2.Finished | None = None,
    ) -> inference_pb2.GenerateResponse:
        self._began = True
        return inference_pb2.GenerateResponse(
            id=self.generation_id,
            model=self.model,
            delta=delta,
            choice_finished=choice_finished,
            finished=finished,
        )

    def _failure(self, what: str) -> EngineError:
        return EngineError(f"the engine {self._engine} {what}", Reason.ENGINE_FAILED, metadata={"engine": self._engine})


def read_embeddings(body: bytes, *, model: str, count: int, engine: str) -> inference_pb2.EmbedResponse:
    """The answer of `/v1/embeddings`, in the order of the inputs.

    Raises:
        EngineError: it does not hold one embedding for each of the `count` inputs.
    """
    answer = _answer(body, engine)
    found: dict[int, list[float]] = {}
    for item in _objects(answer.get("data")):
        index, values = item.get("index"), item.get("embedding")
        if isinstance(index, int) and isinstance(values, list):
            found[index] = values
    if sorted(found) != list(range(count)):
        raise EngineError(f"the engine {engine} sent {len(found)} embeddings for {count} inputs")
    try:
        embeddings = [inference_pb2.Embedding(index=index, values=found[index]) for index in range(count)]
    except TypeError:
        raise EngineError(f"the engine {engine} sent an embedding that is not a list of numbers") from None
    return inference_pb2.EmbedResponse(model=model, embeddings=embeddings, usage=_pooled_usage(answer))


def read_ranking(body: bytes, *, model: str, count: int, engine: str) -> inference_pb2.RerankResponse:
    """The answer of `/v1/rerank`, best first.

    Raises:
        EngineError: a result does not belong to one of the `count` documents.
    """
    answer = _answer(body, engine)
    results = []
    for item in _objects(answer.get("results")):
        index, score = item.get("index"), item.get("relevance_score")
        if not isinstance(index, int) or not 0 <= index < count or not isinstance(score, int | float):
            raise EngineError(f"the engine {engine} sent a result that belongs to none of the {count} documents")
        results.append(inference_pb2.RerankResult(index=index, relevance_score=score))
    if not results:
        raise EngineError(f"the engine {engine} sent no results for {count} documents")
    results.sort(key=lambda result: (-result.relevance_score, result.index))
    return inference_pb2.RerankResponse(model=model, results=results, usage=_pooled_usage(answer))


def _answer(body: bytes, engine: str) -> dict[str, object]:
    answer = loads(body)
    if not isinstance(answer, dict):
        raise EngineError(f"the engine {engine} sent an answer that is not a JSON object")
    if (error := find_error(answer)) is not None:
        raise error_from_payload(engine, _OK, error)
    return answer


def _objects(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _ids(value: object) -> list[int]:
    """Token ids, or none if these are none."""
    ids = value if isinstance(value, list) else []
    return ids if all(type(item) is int and 0 <= item <= INT32_MAX for item in ids) else []


def _pooled_usage(answer: Mapping[str, object]) -> common_pb2.Usage:
    count = read_count(answer)
    if count is None or count.input is None:
        return common_pb2.Usage(method=common_pb2.USAGE_METHOD_UPPER_BOUND)
    return common_pb2.Usage(input_tokens=count.input, method=common_pb2.USAGE_METHOD_ENGINE)


def _delta(index: int, content: Mapping[str, object]) -> inference_pb2.Delta:
    text = content.get("content")
    # DeepSeek's name, which most engines took up, and vLLM's newer one.
    reasoning = content.get("reasoning_content") or content.get("reasoning")
    delta = inference_pb2.Delta(
        choice=index,
        text=text if isinstance(text, str) else "",
        reasoning=reasoning if isinstance(reasoning, str) else "",
    )
    for position, call in enumerate(_objects(content.get("tool_calls"))):
        delta.tool_calls.append(_tool_call(position, call))
    return delta


def _tool_call(position: int, call: Mapping[str, object]) -> inference_pb2.ToolCall:
    function = call.get("function")
    members = function if isinstance(function, dict) else {}
    index, call_id, name = call.get("index"), call.get("id"), members.get("name")
    arguments = members.get("arguments")
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return inference_pb2.ToolCall(
        id=call_id if isinstance(call_id, str) else "",
        name=name if isinstance(name, str) else "",
        arguments=arguments if isinstance(arguments, str) else "",
        index=index if isinstance(index, int) else position,
    )
