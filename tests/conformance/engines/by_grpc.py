"""What engines have in common that are asked by gRPC, in token ids."""

from typing import ClassVar

import grpc

from tests.conformance.engines.subject import Running, Subject, Whole, chat

NO_GUIDED_DECODING = "the emulator's gRPC service has no guided decoding"


class AskedByGrpc(Subject):
    """An engine's own gRPC service.

    Attributes:
        generate_method: of its service; it takes a request and answers with a stream.
    """

    generate_method: ClassVar[str]

    async def whole(self, running: Running, text: str, tokens: int) -> Whole:
        """By its client: the service knows no other answer than a stream."""
        answer = await running.ask(chat(running.engine.model, text, tokens))
        return Whole(answer.choices[0].text, answer.usage.input_tokens, answer.usage.output_tokens)

    async def is_refused(self, running: Running) -> bool:
        """A request without a prompt."""
        async with grpc.aio.insecure_channel(running.replica.address) as channel:
            call = channel.unary_stream(self.generate_method, request_serializer=bytes, response_deserializer=bytes)
            try:
                async for _ in call(b""):
                    pass
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.INVALID_ARGUMENT
        return False


class EmulatedByGrpc(Subject):
    """An emulator's gRPC service, where a token is a byte."""

    tokens = 48
    context_tokens = 2048
