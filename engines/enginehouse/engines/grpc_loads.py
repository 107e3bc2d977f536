"""The load of an engine that serves gRPC alone, as vLLM's service tells it (`GetLoads`, smg-grpc-servicer 0.14)."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from google.protobuf import json_format

from enginehouse.contract import EngineError, Reason
from enginehouse.v1 import vllm_engine_pb2

if TYPE_CHECKING:
    import grpc.aio

GET_LOADS = "/vllm.grpc.engine.VllmEngine/GetLoads"
RUNNING, WAITING = "num_running_reqs", "num_waiting_reqs"
USED_TOKENS, KV_CACHE_USAGE = "num_used_tokens", "token_usage"
# Not told, but added up from the throughput that is.
GENERATED_TOKENS = "generated_tokens"
_THROUGHPUT = "gen_throughput"
_SUMMED = (RUNNING, WAITING, USED_TOKENS, KV_CACHE_USAGE, _THROUGHPUT)
# A new engine may listen at the port of one that was there before; a long wait between two attempts would count as its.
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)


class GrpcLoadsReader:
    """Asks for loads by gRPC, on one connection that is kept open. A page is the answer as JSON."""

    def __init__(self) -> None:
        self._channel: grpc.aio.Channel | None = None
        self._address = ""

    async def read(self, address: str, path: str) -> str:
        """What the method `path` of the engine at `address` answers.

        Raises:
            EngineError: the engine does not answer.
        """
        import grpc.aio  # not with the module: engines that run in processes of their own import it and need no gRPC

        if self._channel is None or self._address != address:
            await self.close()
            self._channel, self._address = grpc.aio.insecure_channel(address, options=_OPTIONS), address
        ask = self._channel.unary_unary(
            path,
            request_serializer=vllm_engine_pb2.VllmLoadsRequest.SerializeToString,
            response_deserializer=vllm_engine_pb2.VllmLoads.FromString,
        )
        try:
            loads = await ask(vllm_engine_pb2.VllmLoadsRequest())
        except grpc.aio.AioRpcError as error:
            raise EngineError(f"{path} failed with status {error.code().name}", Reason.ENGINE_FAILED) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody cancelled us: grpc.aio raises this for a call that the engine ended with the status CANCELLED.
            raise EngineError(f"{path} failed with status CANCELLED", Reason.ENGINE_FAILED) from None
        return json_format.MessageToJson(loads, preserving_proto_field_name=True)

    async def close(self) -> None:
        """Closes the connection."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None


class LoadsPage:
    """Adds up the pages of one engine."""

    def __init__(self) -> None:
        self._generated = 0.0
        self._last_s: float | None = None

    def read(self, page: str, monotonic_s: float) -> Mapping[str, float]:
        """Gauges, summed over the engine's ranks, and the tokens generated since the first page.

        Args:
            page: the JSON text. One that is no answer of `GetLoads` gives nothing.
            monotonic_s: when it was read.
        """
        try:
            answer = json_format.Parse(page, vllm_engine_pb2.VllmLoads(), ignore_unknown_fields=True)
        except json_format.ParseError:
            return {}
        gauges = {name: sum(float(getattr(rank, name)) for rank in answer.loads) for name in _SUMMED}
        elapsed_s = 0.0 if self._last_s is None else monotonic_s - self._last_s
        self._generated += gauges[_THROUGHPUT] * elapsed_s
        self._last_s = monotonic_s
        gauges[KV_CACHE_USAGE] /= max(1, len(answer.loads))  # each rank has a cache of its own
        return {**gauges, GENERATED_TOKENS: self._generated}
