"""Errors on their way out of a gRPC server: ours with their reason, all others as INTERNAL without a word."""

import inspect
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Never, TypeAlias

import grpc
import grpc.aio
import structlog
from grpc_status import rpc_status

from enginehouse.contract import EnginehouseError, InternalError

_log = structlog.get_logger(__name__)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Serve: TypeAlias = Any
"""A servicer's method; the published types know only the ones of gRPC's threaded server."""


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Answers every error with google.rpc.Status: unary and streamed answers alike."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[_Handler | None]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "_Handler | None":
        """Wraps the method's handler."""
        handler = await continuation(handler_call_details)
        return None if handler is None else _wrapped(handler, handler_call_details.method)


def _wrapped(handler: _Handler, method: str) -> _Handler:
    build, serve = _BUILDERS[handler.request_streaming, handler.response_streaming](handler)
    if not (inspect.iscoroutinefunction(serve) or inspect.isasyncgenfunction(serve)):
        return handler  # gRPC runs it in a thread, where a coroutine of ours has no place
    wrap = _streaming if handler.response_streaming else _unary
    return build(wrap(serve, method), handler.request_deserializer, handler.response_serializer)


_BUILDERS: dict[tuple[bool, bool], Callable[[_Handler], tuple[Callable[..., _Handler], _Serve]]] = {
    (False, False): lambda handler: (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
    (False, True): lambda handler: (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
    (True, False): lambda handler: (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
    (True, True): lambda handler: (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
}


def _unary(serve: _Serve, method: str) -> _Serve:
    async def serve_safely(request: object, context: _Context) -> object:
        try:
            return await serve(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 (the last frame before gRPC, which would show it to the client)
            await _abort(context, error, method)

    return serve_safely


def _streaming(serve: _Serve, method: str) -> _Serve:
    async def serve_safely(request: object, context: _Context) -> AsyncIterator[object]:
        try:
            answer = serve(request, context)
            if inspect.isasyncgen(answer):
                async with aclosing(answer):
                    async for message in answer:
                        yield message
            else:
                await answer  # it writes to the context itself
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 (the last frame before gRPC, which would show it to the client)
            await _abort(context, error, method)

    return serve_safely


async def _abort(context: _Context, error: Exception, method: str) -> Never:
    ours = error if isinstance(error, EnginehouseError) else _unexpected(error, method)
    status = rpc_status.to_status(ours.to_status())
    # what the handler has set, a count of tokens for one, must not be lost by the abort
    trailing = (*(context.trailing_metadata() or ()), *status.trailing_metadata)
    await context.abort(status.code, status.details, trailing)


def _unexpected(error: Exception, method: str) -> InternalError:
    # Not the error's own text: a parser's message quotes what it parsed, and that may be a prompt or a key.
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("unexpected error", method=method, error=type(error).__qualname__, causes=_causes(error), frames=frames)
    return InternalError("internal error")


def _causes(error: BaseException) -> list[str]:
    causes = []
    cause = error.__cause__ or error.__context__
    while cause is not None:
        causes.append(type(cause).__qualname__)
        cause = cause.__cause__ or cause.__context__
    return causes
