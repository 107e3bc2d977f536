"""Answers Envoy's question about a request: who is it, may it, and where does it go.

The names of headers and metadata are the agreement with deploy/envoy/.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from http import HTTPStatus
from urllib.parse import parse_qs

import structlog
from google.protobuf import json_format
from opentelemetry.trace import SpanKind

from enginehouse.adapters.dialects import Endpoint, dialect_of_path, encode_error, find_endpoint
from enginehouse.adapters.hints import combine_hints, hints_from_headers
from enginehouse.adapters.inspection import Inspection
from enginehouse.adapters.splices import Splice, add_members, cap_output, combine, remove_hints, set_model
from enginehouse.contract import EnginehouseError, InternalError, PolicyRefusal, Reason, RequestError
from enginehouse.router import Hints, Jurisdictions, Principal, Refused, Request
from enginehouse.services.access_log import ticket_text
from enginehouse.services.router.admission import Admission, Outcome
from enginehouse.services.router.keys import KeyRing
from enginehouse.services.router.prompt import Prompt
from enginehouse.services.telemetry import operation_span
from enginehouse.v1 import common_pb2, router_pb2

_log = structlog.get_logger(__name__)
INTERNAL = "x-enginehouse-internal-"
PRINCIPAL_HEADER = f"{INTERNAL}principal"
_OPEN_PATHS = frozenset({"/health", "/ready"})
_GENERATING = frozenset({common_pb2.OPERATION_CHAT, common_pb2.OPERATION_COMPLETION})
_EXCLUDED_CHARACTERS_MAX = 300
_EXPLAINED_BY_DEFAULT = "/v1/chat/completions"
_JSON = ("content-type", "application/json")

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What Envoy is told. 200 admits; anything else is what the client gets."""

    status: int
    headers: Headers
    body: bytes = b""


class Checker:
    """Checks requests one by one; many at once.

    Args:
        router: this router's id.
        admission: decides and holds.
        keys: the key ring of this moment.
        jurisdictions: spells residency hints.
        now_ms: Unix time in milliseconds.
    """

    def __init__(
        self,
        *,
        router: str,
        admission: Admission,
        keys: Callable[[], KeyRing],
        jurisdictions: Jurisdictions,
        now_ms: Callable[[], int],
    ) -> None:
        self._router = router
        self._admission = admission
        self._keys = keys
        self._jurisdictions = jurisdictions
        self._now_ms = now_ms

    async def check(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answers one request. Every error becomes a denial in the client's own dialect.

        Args:
            method, path: as the client sent them.
            headers: names in lower case.
            body: whole, decompressed.
        """
        try:
            return await self._checked(method, path, headers, body)
        except EnginehouseError as error:
            return self._denied(error, path, headers)
        except Exception:  # noqa: BLE001 (the client is told that it is ours, the log what it was)
            _log.exception("check failed", request_id=headers.get("x-request-id", ""))
            return self._denied(InternalError("internal error"), path, headers)

    async def _checked(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if path.partition("?")[0] in _OPEN_PATHS:
            return self._local()
        endpoint = find_endpoint(method, path)
        principal = self._keys().authenticate(headers, self._now_ms())
        hints = hints_from_headers({name: value for name, value in headers.items() if not name.startswith(INTERNAL)})
        if endpoint.inspect is None:
            return self._local((PRINCIPAL_HEADER, principal.key_name))
        inspection = endpoint.inspect(body, headers)
        request = self._request(headers.get("x-request-id", ""), principal, inspection, hints)
        with operation_span(endpoint.operation, inspection.model, headers=headers, kind=SpanKind.INTERNAL):
            outcome = await self._admission.admit(request, _prompt(inspection, body, headers))
        if outcome.ticket is None:
            return self._denied(refusal_error(outcome.decision.refused), path, headers, outcome.message.id)
        return self._admitted(endpoint, inspection, outcome, outcome.ticket)

    async def explain(self, query: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What would become of a request, as JSON; a refusal is part of it. Nothing is held.

        Args:
            query: "path=/v1/messages" says where the request would go; without it, to chat completions.
            headers: its own, and the principal that the check has found.
            body: its own.
        """
        request_id = headers.get("x-request-id", "")
        path = next(iter(parse_qs(query).get("path", ())), _EXPLAINED_BY_DEFAULT)
        try:
            endpoint = find_endpoint("POST", path)
            if endpoint.inspect is None:
                raise RequestError(f"{path} is answered without a decision; name a path that a model answers")
            inspection = endpoint.inspect(body, headers)
            hints = hints_from_headers(
                {name: value for name, value in headers.items() if not name.startswith(INTERNAL)}
            )
            principal = Principal.from_key_name(headers[PRINCIPAL_HEADER])
            decision = await self._admission.explain(self._request(request_id, principal, inspection, hints))
        except EnginehouseError as error:
            answer = encode_error(common_pb2.DIALECT_OPENAI, error, request_id)
            return Answer(answer.status, answer.headers, answer.body)
        for attempt in decision.attempts:
            attempt.ClearField("address")  # where engines listen is nothing that a caller needs
        return Answer(
            HTTPStatus.OK, [_JSON], json_format.MessageToJson(decision, preserving_proto_field_name=True).encode()
        )

    def _request(
        self, request_id: str, principal: Principal, inspection: Inspection, header_hints: common_pb2.Hints
    ) -> Request:
        if not request_id:
            raise InternalError("Envoy sent no request id")
        hints = hints_of(combine_hints(inspection.hints, header_hints), self._jurisdictions)
        return Request(
            id=request_id,
            operation=inspection.operation,
            dialect=inspection.dialect,
            model=inspection.model,
            principal=principal,
            is_stream=inspection.stream,
            features=inspection.features,
            prompt_text_bytes=inspection.prompt_text_bytes,
            message_count=inspection.message_count,
            image_count=inspection.image_count,
            output_tokens_max=inspection.output_tokens_max,
            choices=inspection.choices,
            input_count=inspection.input_count,
            hints=replace(hints, session=_session_key(hints.session)),
        )

    def _admitted(
        self, endpoint: Endpoint, inspection: Inspection, outcome: Outcome, ticket: router_pb2.Ticket
    ) -> Answer:
        destination = list(dict.fromkeys(attempt.address for attempt in ticket.attempts))
        text = ticket_text(ticket)
        is_direct = ticket.lane == common_pb2.LANE_DIRECT
        headers = [
            (f"{INTERNAL}lane", "direct" if is_direct else "adapter"),
            (f"{INTERNAL}destination", ",".join(destination)),
            ("x-envoy-max-retries", str(len(destination) - 1)),
            ("x-md-router", self._router),
            ("x-md-ticket", text),
            ("x-md-decision", ticket.decision_id),
            ("x-md-outcome", "admitted"),
        ]
        if outcome.decision.excluded:
            headers.append(("x-md-excluded", _header_text(outcome.decision.excluded)))
        if not is_direct:
            headers.append((f"{INTERNAL}ticket", text))
        elif splices := _splices(endpoint, inspection, outcome, ticket):
            headers.append((f"{INTERNAL}splices", _splices_text(splices)))
        return Answer(HTTPStatus.OK, headers)

    def _local(self, *more: tuple[str, str]) -> Answer:
        headers = [(f"{INTERNAL}lane", "local"), ("x-md-router", self._router), ("x-md-outcome", "admitted")]
        return Answer(HTTPStatus.OK, [*headers, *more])

    def _denied(self, error: EnginehouseError, path: str, headers: Mapping[str, str], decision_id: str = "") -> Answer:
        dialect = dialect_of_path(path, headers.get("content-type", ""))
        answer = encode_error(dialect, error, headers.get("x-request-id", ""))
        described = [*answer.headers, ("x-md-router", self._router), ("x-md-outcome", "denied")]
        if decision_id:
            described.append(("x-md-decision", decision_id))
        if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Answer(answer.status, described, answer.body)
        # To Envoy a 5xx is a router that could not decide; it would ask another.
        described.append(("x-md-status", str(answer.status)))
        return Answer(HTTPStatus.FORBIDDEN, described, answer.body)


def hints_of(message: common_pb2.Hints, jurisdictions: Jurisdictions) -> Hints:
    """The hints of a message, spelled as the core wants them.

    Raises:
        RequestError: a residency hint names no jurisdiction (UNKNOWN_HINT).
    """
    try:
        residency = frozenset(jurisdictions.jurisdiction(name) for name in message.residency)
    except RequestError as error:
        raise RequestError(f"residency hint: {error.message}", Reason.UNKNOWN_HINT) from error
    return Hints(
        residency=residency,
        chip=message.chip,
        quality=message.quality,
        price_nanousd_max=message.price_nanousd_max or None,
        session=message.session,
    )


def _session_key(session: str) -> str:
    """A session by its hash: its name is the caller's text, and belongs in no decision."""
    return blake2b(session.encode(), digest_size=16).hexdigest() if session else ""


def refusal_error(refused: Refused | None) -> EnginehouseError:
    """A refusal as the error that its caller gets."""
    if refused is None:
        return InternalError("a refusal without a reason")
    metadata = {"rule": refused.rule}
    for need in refused.needs:
        if need.amount > need.headroom:
            metadata |= {"limit": need.limit, "needed": str(need.amount), "left": str(need.headroom)}
            break
    is_callers = refused.reason.statuses.http in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)
    kind = RequestError if is_callers else PolicyRefusal
    return kind(refused.message, refused.reason, metadata=metadata, retry_after_s=refused.retry_after_s)


def _prompt(inspection: Inspection, body: bytes, headers: Mapping[str, str]) -> Prompt:
    return Prompt(inspection.dialect, inspection.operation, inspection.prompt_beginning, body, headers)


def _splices(
    endpoint: Endpoint, inspection: Inspection, outcome: Outcome, ticket: router_pb2.Ticket
) -> tuple[Splice, ...]:
    layout = inspection.layout
    if layout is None:
        return ()
    best = outcome.decision.attempts[0]
    groups = [remove_hints(layout)]
    if best.served_model != inspection.model:
        groups.append(set_model(layout, best.served_model))
    if endpoint.operation in _GENERATING:
        groups.append(cap_output(layout, ticket.output_tokens_max))
        if inspection.stream and best.capabilities.stream_usage_members:
            groups.append(add_members(layout, best.capabilities.stream_usage_members))
    return combine(*groups)


def _splices_text(splices: Sequence[Splice]) -> str:
    return ",".join(f"{splice.offset}:{splice.length}:{splice.text.encode().hex()}" for splice in splices)


def _header_text(text: str) -> str:
    return "".join(letter if _is_plain(letter) else "?" for letter in text[:_EXCLUDED_CHARACTERS_MAX])


def _is_plain(letter: str) -> bool:
    return letter.isascii() and letter.isprintable() and letter not in '"\\'
