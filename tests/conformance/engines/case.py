"""What makes a test a case of the suite: its column, and how what an engine lacks is tested as a refusal."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Concatenate, TypeVar

import pytest

from enginehouse.adapters.collect import CollectedAnswer
from enginehouse.contract import EngineError, EnginehouseError, Reason, RequestError
from enginehouse.router import Capabilities, Chip, Policy, Replica
from enginehouse.router.filters.feature import FeatureFilter
from enginehouse.router.filters.filter import Kind
from enginehouse.router.filters.operation import OperationFilter
from enginehouse.v1 import common_pb2, inference_pb2
from tests.conformance.engines.columns import Column
from tests.conformance.engines.subject import RefusedBy, Running, Subject, chat

MARK = "case"


class Result(StrEnum):
    """What a cell of the page says."""

    YES = "yes"
    REFUSED = "refused"
    NOT_APPLICABLE = "not applicable"
    NOT_SHOWN = "not shown"


@dataclass(slots=True)
class Cell:
    """What a case that passed has found. All but a plain yes has a reason."""

    result: Result = Result.YES
    reason: str = ""

    def refused(self, reason: str) -> None:
        """The engine does not offer it, and that was refused."""
        self.result, self.reason = Result.REFUSED, reason

    def not_applicable(self, reason: str) -> None:
        """The engine has nothing to show it by, and that was seen."""
        self.result, self.reason = Result.NOT_APPLICABLE, reason

    def not_shown(self, reason: str) -> None:
        """It cannot be seen here."""
        self.result, self.reason = Result.NOT_SHOWN, reason

    def note(self, reason: str) -> None:
        """Yes, with a remark."""
        self.reason = reason


Suite = TypeVar("Suite", bound=Subject)
Case = Callable[[Suite, Running, Cell], Awaitable[None]]


def case(
    column: Column, *operations: common_pb2.Operation.ValueType
) -> Callable[[Case[Suite]], Callable[Concatenate[Suite, ...], Awaitable[None]]]:
    """Makes a test a case.

    Args:
        column: where its result is shown.
        operations: it needs one of them. An engine that has none has to refuse them all.
    """

    def decorate(test: Case[Suite]) -> Case[Suite]:
        @functools.wraps(test)
        async def checked(self: Suite, running: Running, cell: Cell) -> None:
            if operations and not any(map(running.does, operations)):
                await _refuses_operations(running, *operations)
                cell.refused(_reason(self, column))
            elif column in self.not_shown:
                with pytest.raises((AssertionError, EnginehouseError, ValueError)):
                    await test(self, running, cell)
                cell.not_shown(self.not_shown[column])
            else:
                await test(self, running, cell)
                cell.reason = cell.reason or self.remarks.get(column, "")

        marked: Case[Suite] = getattr(pytest.mark, MARK)(column)(checked)
        return marked

    return decorate


async def answer_or_refusal(
    running: Running,
    cell: Cell,
    column: Column,
    feature: common_pb2.Feature.ValueType,
    request: inference_pb2.GenerateRequest,
) -> CollectedAnswer | None:
    """The answer to a request that uses a feature; None once that is refused, by an engine that lacks it."""
    if running.offers(feature):
        assert column not in running.subject.refused, f"{running.subject.title} offers it; take it out of `refused`"
        return await running.ask(request)
    cell.refused(_reason(running.subject, column))
    assert await refusing(running, feature, request) is running.subject.refused[column].by
    return None


async def refusing(
    running: Running, feature: common_pb2.Feature.ValueType, request: inference_pb2.GenerateRequest
) -> RefusedBy:
    """Who refuses a request that uses a feature that the engine does not offer: its client, or else the router."""
    assert _is_filtered(running, feature)
    try:
        await running.ask(request)
    except RequestError as refusal:
        if refusal.reason is not Reason.UNSUPPORTED_FIELD:
            return RefusedBy.ROUTER  # the engine itself would refuse it, if it came so far
        if refusal.metadata["field"] not in refusal.message or not _names_engine(running, refusal.message):
            raise AssertionError(f"a refusal that does not name its field and its engine: {refusal.message}") from None
        return RefusedBy.ADAPTER
    except EngineError:
        pass
    return RefusedBy.ROUTER


def _is_filtered(running: Running, feature: common_pb2.Feature.ValueType) -> bool:
    """The router's filter drops the replica for a request that needs the feature."""
    dropped = FeatureFilter().drop(_candidate(running), _kind(common_pb2.OPERATION_CHAT, feature))
    return dropped is not None and dropped.startswith("lacks ")


async def _refuses_operations(running: Running, *operations: common_pb2.Operation.ValueType) -> None:
    for operation in operations:
        assert OperationFilter().drop(_candidate(running), _kind(operation))
        with pytest.raises((RequestError, EngineError)) as refusal:
            await _ask_for(running, operation)
        assert _names_engine(running, refusal.value.message)


async def _ask_for(running: Running, operation: common_pb2.Operation.ValueType) -> None:
    model = running.engine.model
    async with running.client() as client:
        match operation:
            case common_pb2.OPERATION_EMBEDDING:
                await client.embed(inference_pb2.EmbedRequest(model=model, input=["a"]), served_model=model)
            case common_pb2.OPERATION_RERANK:
                ranked = inference_pb2.RerankRequest(model=model, query="a", documents=["a", "b"])
                await client.rerank(ranked, served_model=model)
            case common_pb2.OPERATION_COUNT_TOKENS:
                counted = inference_pb2.CountTokensRequest(model=model, conversation=chat(model, "a", 1).conversation)
                await client.count_tokens(counted, served_model=model)
            case _:
                await running.steps(inference_pb2.GenerateRequest(model=model, prompt="a"))


def _reason(subject: Subject, column: Column) -> str:
    assert column in subject.refused, f"{subject.title} lacks {column.value}: say in `refused` why"
    return subject.refused[column].reason


def _names_engine(running: Running, message: str) -> bool:
    """By its kind, or as people write it: llama.cpp for "llama-cpp", vLLM for "vllm"."""
    letters = "".join(filter(str.isalnum, message)).lower()
    names = (running.subject.kind, *running.subject.other_names)
    return any("".join(filter(str.isalnum, name)).lower() in letters for name in names)


def _candidate(running: Running) -> Replica:
    """The replica as routers see it, as far as its abilities go."""
    replica = running.replica
    can = Capabilities(frozenset(replica.capabilities.operations), frozenset(replica.capabilities.features))
    return Replica(
        id=replica.id,
        deployment=replica.deployment,
        model=replica.served_model,
        node="",
        address=replica.address,
        node_address="",
        served_model=replica.served_model,
        place=None,
        chip=Chip(common_pb2.CHIP_CLASS_CPU),
        capabilities=can,
        price=None,
    )


def _kind(operation: common_pb2.Operation.ValueType, *features: common_pb2.Feature.ValueType) -> Kind:
    return Kind("", "", operation, common_pb2.DIALECT_OPENAI, frozenset(features), Policy())
