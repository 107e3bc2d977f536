"""Request bodies of our own engine servers, checked by their pydantic models."""

from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from enginehouse.engines.serving.answers import ApiError


class RequestBody(BaseModel):
    """A body. Members that it does not name are ignored, as OpenAI-compatible engines do."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


Body = TypeVar("Body", bound=RequestBody)


async def read_body(request: web.Request, kind: type[Body]) -> Body:
    """The body of `request` as `kind`.

    Raises:
        ApiError: it is no JSON, or not of that form. The message names the member and quotes nothing.
    """
    raw = await request.read()
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "json_invalid":
            raise ApiError("the body is not valid JSON") from None
        raise ApiError(f"{where}: {first['msg']}" if where else first["msg"], param=where or None) from None
