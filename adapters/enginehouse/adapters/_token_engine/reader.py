"""Answers in token ids as canonical responses."""

from collections.abc import Iterable, Sequence

from enginehouse.adapters._token_engine.answer import ChoiceEnd, TokenChance, TokenPiece
from enginehouse.adapters._token_engine.text import StopSequences, TokenText
from enginehouse.adapters._token_engine.tokenizer import EngineTokenizer
from enginehouse.adapters.usage import UsageTally
from enginehouse.contract import EngineError
from enginehouse.v1 import common_pb2, inference_pb2

_NOT_WHOLE = "\N{REPLACEMENT CHARACTER}"


class _Choice:
    """One choice as far as it has come. `is_told`: its end was; `is_over`: the engine said so too."""

    def __init__(self, tokenizer: EngineTokenizer, prompt: Sequence[int], stops: Sequence[str]) -> None:
        self.text = TokenText(tokenizer, prompt)
        self.stops = StopSequences(stops)
        self.is_told = False
        self.is_over = False


class AnswerReader:
    """Reads one generation, and holds what is known of its usage at every moment.

    Args:
        request: canonical.
        prompt: token ids.
        tokenizer: the engine's.
        generation_id: written into every response.
        engine: for messages.

    Attributes:
        began: the engine has generated, or counted, something.
        has_overrun: the engine goes on after a stop sequence that it does not see, and nothing else is wanted of it.
    """

    def __init__(
        self,
        request: inference_pb2.GenerateRequest,
        prompt: Sequence[int],
        tokenizer: EngineTokenizer,
        *,
        generation_id: str,
        engine: str,
    ) -> None:
        self.began = False
        self.has_overrun = False
        self._model = request.model
        self._with_ids = request.return_token_ids
        self._generation_id = generation_id
        self._engine = engine
        self._tokenizer = tokenizer
        stops = request.sampling.stop
        self._choices = [_Choice(tokenizer, prompt, stops) for _ in range(max(1, request.sampling.choices))]
        self._tally = UsageTally()

    def read(self, part: TokenPiece | ChoiceEnd) -> Iterable[inference_pb2.GenerateResponse]:
        """The responses for one part of the answer.

        Raises:
            EngineError: the part does not fit what was asked for.
        """
        self.began = True
        if not 0 <= part.choice < len(self._choices):
            raise self._failure(f"sent a choice that was not asked for; asked for {len(self._choices)}")
        choice = self._choices[part.choice]
        if isinstance(part, ChoiceEnd):
            yield from self._end(choice, part)
            return
        self._tally.choice(part.choice, part.count)
        if not part.token_ids:
            return
        if choice.is_over:
            raise self._failure("sent more of a choice after its end")
        if choice.is_told:
            self.has_overrun = all(one.is_told for one in self._choices)
            return
        yield from self._piece(choice, part)

    def finish(self) -> inference_pb2.GenerateResponse:
        """The last response, once the engine has nothing more to say, or is not listened to any more.

        Raises:
            EngineError: a choice has no end: the stream ended early.
        """
        told = sum(choice.is_told for choice in self._choices)
        if told < len(self._choices):
            raise self._failure(f"ended early: {told} of {len(self._choices)} choices finished")
        is_whole = all(choice.is_over for choice in self._choices)
        method = common_pb2.USAGE_METHOD_ENGINE if is_whole else common_pb2.USAGE_METHOD_ENGINE_PARTIAL
        response = self._response()
        response.finished.usage.CopyFrom(self._usage(method))
        return response

    @property
    def usage(self) -> common_pb2.Usage:
        """The running count, for a generation that is cut now; UPPER_BOUND when the engine has not counted."""
        return self._usage(common_pb2.USAGE_METHOD_ENGINE_PARTIAL)

    def _usage(self, method: common_pb2.UsageMethod.ValueType) -> common_pb2.Usage:
        if not self._tally.known:
            return common_pb2.Usage(method=common_pb2.USAGE_METHOD_UPPER_BOUND)
        return self._tally.usage(method)

    def _piece(self, choice: _Choice, piece: TokenPiece) -> Iterable[inference_pb2.GenerateResponse]:
        text = choice.stops.push("".join(choice.text.push(token_id) for token_id in piece.token_ids))
        response = self._response()
        delta = response.delta
        delta.choice, delta.text = piece.choice, text
        delta.logprobs.extend(self._chance(chance) for chance in piece.chances)
        if self._with_ids:
            delta.token_ids.extend(piece.token_ids)
        if delta.text or delta.logprobs or delta.token_ids:
            yield response
        if choice.stops.met:
            choice.is_told = True
            yield self._finished(piece.choice, inference_pb2.FINISH_REASON_STOP, choice.stops.met)

    def _end(self, choice: _Choice, end: ChoiceEnd) -> Iterable[inference_pb2.GenerateResponse]:
        if choice.is_over:
            return
        if end.reason is None and not choice.is_told:
            raise self._failure("stopped a choice for a reason that is neither stop nor length")
        choice.is_over = True
        if choice.is_told:
            return
        choice.is_told = True
        if text := choice.stops.finish(end.stop_sequence):
            response = self._response()
            response.delta.choice, response.delta.text = end.choice, text
            yield response
        reason = end.reason or inference_pb2.FINISH_REASON_STOP
        yield self._finished(end.choice, reason, choice.stops.met)

    def _finished(
        self, choice: int, reason: inference_pb2.FinishReason.ValueType, stop: str
    ) -> inference_pb2.GenerateResponse:
        response = self._response()
        response.choice_finished.choice = choice
        response.choice_finished.reason = reason
        response.choice_finished.stop_sequence = stop
        return response

    def _chance(self, chance: TokenChance) -> inference_pb2.TokenLogprob:
        text = self._tokenizer.token_text(chance.token_id)
        return inference_pb2.TokenLogprob(
            token=text,
            logprob=chance.logprob,
            token_bytes=b"" if _NOT_WHOLE in text else text.encode(),  # its text is not all that it is
            top=[self._chance(top) for top in chance.top],
        )

    def _response(self) -> inference_pb2.GenerateResponse:
        return inference_pb2.GenerateResponse(id=self._generation_id, model=self._model)

    def _failure(self, what: str) -> EngineError:
        return EngineError(f"the engine {self._engine} {what}", metadata={"engine": self._engine})
