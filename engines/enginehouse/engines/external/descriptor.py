"""Any OpenAI-compatible engine that somebody else runs, known by its URL alone."""

from enginehouse.contract import InternalError, RequestError
from enginehouse.engines.descriptor import Assignment, Bounds, EngineDescriptor, EngineSpec, EngineTraits, Launch
from enginehouse.v1 import common_pb2


class ExternalEngine(EngineDescriptor):
    """What can be said of an engine of unknown kind: it chats, completes and streams.

    Its usage is sure only at a stream's end, and nobody knows how its streams fail: it is served in the adapter lane.
    Where the kind is known, name that kind and set `external_url`: then everything known of it holds, metrics included.
    """

    kind = "external"
    traits = EngineTraits(
        operations=(common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION),
        features=(common_pb2.FEATURE_STREAM, common_pb2.FEATURE_STOP_SEQUENCES),
        dialects=(common_pb2.DIALECT_OPENAI,),
        defaults=Bounds(context_tokens_max=4096, output_tokens_max=1024, parallel=1, threads=1),
    )

    def check(self, spec: EngineSpec) -> None:
        """Refuses a replica that is nowhere.

        Raises:
            RequestError: there is no URL.
        """
        super().check(spec)
        if not spec.settings.external_url:
            raise RequestError(
                f"{spec.deployment}: engine {self.kind} needs external_url, for example http://127.0.0.1:8000"
            )

    def command(self, spec: EngineSpec, assignment: Assignment) -> Launch:
        """There is none: the engine runs already."""
        raise InternalError(f"{spec.deployment}: an external engine was to be launched; it is attached")
