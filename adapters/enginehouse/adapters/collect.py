"""A whole answer, put together from the steps of a generation."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from enginehouse.contract import EngineError
from enginehouse.v1 import common_pb2, inference_pb2


@dataclass(slots=True)
class CollectedChoice:
    """One choice, whole.

    Attributes:
        texts: the pieces of its text; `text` joins them.
        reasonings: the pieces of its reasoning; `reasoning` joins them.
        tool_calls: by index, their arguments joined.
        finish_reason: UNSPECIFIED until it has come.
        stop_sequence: the one that ended it, if the engine named it.
        token_ids: of its tokens, where they were asked for.
    """

    index: int
    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    tool_calls: dict[int, inference_pb2.ToolCall] = field(default_factory=dict)
    logprobs: list[inference_pb2.TokenLogprob] = field(default_factory=list)
    finish_reason: inference_pb2.FinishReason.ValueType = inference_pb2.FINISH_REASON_UNSPECIFIED
    stop_sequence: str = ""
    token_ids: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What it says."""
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        """What it thought before."""
        return "".join(self.reasonings)

    def add(self, delta: inference_pb2.Delta) -> None:
        """Takes one more piece."""
        self.texts.append(delta.text)
        self.reasonings.append(delta.reasoning)
        self.logprobs.extend(delta.logprobs)
        self.token_ids.extend(delta.token_ids)
        for piece in delta.tool_calls:
            call = self.tool_calls.setdefault(piece.index, inference_pb2.ToolCall(index=piece.index))
            call.id = call.id or piece.id
            call.name = call.name or piece.name
            call.arguments += piece.arguments


@dataclass(frozen=True, slots=True)
class CollectedAnswer:
    """A whole answer; its choices in order of their index."""

    choices: tuple[CollectedChoice, ...]
    usage: common_pb2.Usage


class Collector:
    """Takes the steps of one generation one by one."""

    def __init__(self) -> None:
        self._choices: dict[int, CollectedChoice] = {}
        self._usage: common_pb2.Usage | None = None

    def add(self, step: inference_pb2.GenerateResponse) -> None:
        """Takes the next step."""
        match step.WhichOneof("event"):
            case "delta":
                self._choice(step.delta.choice).add(step.delta)
            case "choice_finished":
                choice = self._choice(step.choice_finished.choice)
                choice.finish_reason = step.choice_finished.reason
                choice.stop_sequence = step.choice_finished.stop_sequence
            case "finished":
                self._usage = step.finished.usage

    def answer(self) -> CollectedAnswer:
        """Everything, once the generation has finished.

        Raises:
            EngineError: it has not, or a choice has no finish reason: what came is not a whole answer.
        """
        choices = tuple(self._choices[index] for index in sorted(self._choices))
        open_ended = [choice.index for choice in choices if not choice.finish_reason]
        if self._usage is None or not choices or open_ended:
            raise EngineError("the generation ended early: its answer is not whole")
        return CollectedAnswer(choices, self._usage)

    def _choice(self, index: int) -> CollectedChoice:
        return self._choices.setdefault(index, CollectedChoice(index))


def collect(steps: Iterable[inference_pb2.GenerateResponse]) -> CollectedAnswer:
    """The whole answer out of all its steps.

    Raises:
        EngineError: as `Collector.answer`.
    """
    collector = Collector()
    for step in steps:
        collector.add(step)
    return collector.answer()
