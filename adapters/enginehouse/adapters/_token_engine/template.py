"""Chat templates of models, rendered as Hugging Face's transformers renders them.

Source: transformers 4.57, `utils/chat_template_utils.py`, and "Writing a chat template" in its documentation.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from enginehouse.contract import EngineError, RequestError

_MESSAGES = {"field": "conversation.messages"}


class ChatTemplate:
    """One model's template. It runs in jinja's sandbox, where it can neither change nor reach anything of ours.

    Args:
        source: in jinja's language.
        special_tokens: by the names that templates use, for example ``bos_token``.
        engine: for messages.

    Raises:
        EngineError: it is not a template.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], engine: str) -> None:
        self._special_tokens = dict(special_tokens)
        self._engine = engine
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            message = f"the chat template of the engine {engine} cannot be read: {type(error).__name__}"
            raise EngineError(message) from None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt, up to where the assistant begins.

        Args:
            messages: with the members that templates read, `role` and `content` among them.

        Raises:
            RequestError: the template refuses the conversation, for example for the order of its roles.
        """
        try:
            return self._template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError):
            # What a template says about it may quote the conversation.
            raise RequestError(
                f"conversation.messages: the chat template of the model on the engine {self._engine} refuses this "
                "conversation; change the order of its roles, or leave the system message out",
                metadata=_MESSAGES,
            ) from None


class _Generation(Extension):
    """``{% generation %}``, with which templates mark the assistant's own words for training. Here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012 (jinja's own declaration)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes between the marks."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; jinja's own filter writes it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
