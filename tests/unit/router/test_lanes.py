"""Which lane a request takes to a replica."""

import pytest

from enginehouse.router.chip import Chip
from enginehouse.router.policy import Policy
from enginehouse.router.replica import Capabilities, Replica
from enginehouse.router.sift import lane_of
from enginehouse.v1.common_pb2 import ChipClass, Dialect, Feature, Lane, Operation

OPENAI, ANTHROPIC = Dialect.DIALECT_OPENAI, Dialect.DIALECT_ANTHROPIC
DIRECT, ADAPTER = Lane.LANE_DIRECT, Lane.LANE_ADAPTER
REPLICA = Replica(
    id="d-n-0",
    deployment="d",
    model="m",
    node="n",
    address="127.0.0.1:1",
    node_address="127.0.0.1:2",
    served_model="m",
    place=None,
    chip=Chip(ChipClass.CHIP_CLASS_CPU),
    capabilities=Capabilities(operations=frozenset({Operation.OPERATION_CHAT}), direct_dialects=frozenset({OPENAI})),
    price=None,
)


@pytest.mark.parametrize(
    ("dialect", "features", "lane"),
    [
        (OPENAI, set(), DIRECT),
        (OPENAI, {Feature.FEATURE_TOOLS, Feature.FEATURE_PRIORITY}, DIRECT),
        (ANTHROPIC, set(), ADAPTER),
        # An adapter of the model is named in another way to every engine.
        (OPENAI, {Feature.FEATURE_LORA}, ADAPTER),
    ],
)
def test_what_no_engine_understands_as_it_is_takes_the_adapter_lane(
    dialect: Dialect.ValueType, features: set[Feature.ValueType], lane: Lane.ValueType
) -> None:
    assert lane_of(dialect, frozenset(features), Policy(), REPLICA) == lane
