"""What every gRPC server of ours shares, and every client of one."""

from enginehouse.services.server.bearer import bearer_token
from enginehouse.services.server.client import channel, error_from_rpc
from enginehouse.services.server.errors import ErrorInterceptor
from enginehouse.services.server.server import GrpcServer, Listen

__all__ = ["ErrorInterceptor", "GrpcServer", "Listen", "bearer_token", "channel", "error_from_rpc"]
