"""A kind of engine that offers tools, as another package would add it."""

from importlib.metadata import EntryPoint

from enginehouse.engines import Bounds, EngineDescriptor, EngineRegistry, EngineSpec, EngineTraits
from enginehouse.engines.descriptor import Assignment, Launch
from enginehouse.v1 import common_pb2

KIND = "tooled"


class TooledEngine(EngineDescriptor):
    """Chats, with tools."""

    kind = KIND
    traits = EngineTraits(
        operations=(common_pb2.OPERATION_CHAT,),
        features=(common_pb2.FEATURE_TOOLS,),
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=4096, output_tokens_max=64, parallel=1, threads=1),
    )

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        raise NotImplementedError("these tests attach to their engines")


def registry() -> EngineRegistry:
    """The kinds of engine, with this one."""
    return EngineRegistry(lambda: [EntryPoint(KIND, f"{__name__}:{TooledEngine.__name__}", "enginehouse.engines")])
