"""What is held for a request covers all that it can use, in whatever form it comes."""

from dataclasses import replace

import pytest

from enginehouse.router import Capabilities, Chip, Price, Principal, Replica, Request
from enginehouse.router.bounds import bounds
from enginehouse.router.limits import IN_FLIGHT, REQUESTS, TOKENS, USD
from enginehouse.v1 import common_pb2

CAN = Capabilities(
    operations=frozenset({common_pb2.OPERATION_CHAT}),
    context_tokens_max=1000,
    output_tokens_max=200,
    template_tokens=30,
    message_tokens=4,
    image_tokens_max=150,
)
PRICE = Price(2_000_000, 1_000_000, 3_000_000, 7)
REPLICA = Replica(
    id="r",
    deployment="d",
    model="m",
    node="n",
    address="127.0.0.1:1",
    node_address="127.0.0.1:2",
    served_model="m",
    place=None,
    chip=Chip(common_pb2.CHIP_CLASS_CPU),
    capabilities=CAN,
    price=PRICE,
)
CHAT = Request(
    id="q",
    operation=common_pb2.OPERATION_CHAT,
    dialect=common_pb2.DIALECT_OPENAI,
    model="m",
    principal=Principal("o", "t", "p", "k"),
    prompt_text_bytes=100,
    message_count=2,
    output_tokens_max=50,
)


def test_a_conversation_counts_its_bytes_its_template_and_every_message() -> None:
    most = bounds(CHAT, REPLICA)
    assert (most.input_tokens, most.output_tokens) == (100 + 30 + 2 * 4, 50)
    assert most.amount(TOKENS) == 188
    assert most.amount(USD) == 138 * 2 + 50 * 3 + 7
    assert most.amount(REQUESTS) == most.amount(IN_FLIGHT) == 1


def test_output_without_a_bound_is_bounded_by_the_deployment_reasoning_included() -> None:
    assert bounds(replace(CHAT, output_tokens_max=None), REPLICA).output_tokens == 200
    assert bounds(replace(CHAT, output_tokens_max=10_000), REPLICA).output_tokens == 200


def test_every_choice_is_counted() -> None:
    assert bounds(replace(CHAT, choices=5), REPLICA).output_tokens == 250


def test_images_count_for_what_the_deployment_declares_and_for_the_whole_context_when_it_declares_nothing() -> None:
    assert bounds(replace(CHAT, image_count=2), REPLICA).input_tokens == 138 + 300
    undeclared = replace(REPLICA, capabilities=replace(CAN, image_tokens_max=0))
    assert bounds(replace(CHAT, image_count=1), undeclared).input_tokens == 1000


def test_the_context_bounds_one_prompt() -> None:
    assert bounds(replace(CHAT, prompt_text_bytes=5000), REPLICA).input_tokens == 1000


@pytest.mark.parametrize(
    "operation",
    [common_pb2.OPERATION_COMPLETION, common_pb2.OPERATION_EMBEDDING, common_pb2.OPERATION_RERANK],
)
def test_the_context_bounds_each_of_several_texts_and_not_their_sum(operation: common_pb2.Operation.ValueType) -> None:
    many = replace(CHAT, operation=operation, message_count=0, input_count=10, prompt_text_bytes=5000)
    assert bounds(many, REPLICA).input_tokens == 5000 + 10 * 30
    assert bounds(replace(many, prompt_text_bytes=50_000), REPLICA).input_tokens == 10_000


def test_embedding_and_reranking_write_nothing() -> None:
    for operation in (common_pb2.OPERATION_EMBEDDING, common_pb2.OPERATION_RERANK):
        assert bounds(replace(CHAT, operation=operation), REPLICA).output_tokens == 0


def test_an_exact_count_of_this_deployment_replaces_the_bound_on_bytes() -> None:
    counted = replace(CHAT, prompt_tokens=(("other", 1), ("d", 17)))
    assert bounds(counted, REPLICA).input_tokens == 17


def test_a_cache_that_costs_more_than_reading_is_held_for() -> None:
    odd = replace(REPLICA, price=Price(2_000_000, 5_000_000, 3_000_000))
    most = bounds(CHAT, odd)
    assert odd.price is not None
    assert most.cost_nanousd >= max(odd.price.cost_nanousd(138, 50, cached) for cached in (0, 70, 138))
