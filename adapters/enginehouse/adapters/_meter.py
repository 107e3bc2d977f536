"""Counts what reaches a model: bytes of text, images, and the features that a prompt needs."""

import json
from dataclasses import dataclass, field

from enginehouse.adapters._json import inner_containers
from enginehouse.v1 import common_pb2

_HTML_SPECIAL = "<>&'"
_HTML_ESCAPE_GROWTH = 5  # "<" becomes "\u003c"
_INDENT = 4
BEGINNING_BYTES_MAX = 8192


@dataclass(slots=True)
class PromptMeter:
    """Running totals over one prompt.

    Attributes:
        text_bytes: an upper bound on the UTF-8 bytes of the request's own text as a chat template writes it. What the
            template adds of its own is the deployment's to know.
        image_count: images, which cost tokens but no text.
        features: what the engine must be able to do.
        beginning: the first text that the model reads, up to 8 KiB. It must go nowhere.
    """

    text_bytes: int = 0
    image_count: int = 0
    features: set[common_pb2.Feature.ValueType] = field(default_factory=set)
    beginning: bytearray = field(default_factory=bytearray, repr=False)

    def text(self, text: str, times: int = 1) -> None:
        """Text that the template writes as it is, and one byte for what joins it to its neighbor.

        Args:
            text: of the request.
            times: how often the model reads it.
        """
        self.text_bytes += (utf8_length(text) + 1) * times
        space = BEGINNING_BYTES_MAX - len(self.beginning)
        if space > 0:
            self.beginning += text[:space].encode()[:space]

    def rendered(self, value: object) -> None:
        """A JSON value that the template writes with a serializer of its own."""
        self.text_bytes += rendered_length(value)

    def image(self) -> None:
        """An image."""
        self.image_count += 1
        self.features.add(common_pb2.FEATURE_VISION)

    def needs(self, feature: common_pb2.Feature.ValueType, condition: object) -> None:
        """Notes a feature when `condition` holds."""
        if condition:
            self.features.add(feature)


def utf8_length(text: str) -> int:
    """Bytes of `text` in UTF-8. It holds no lone surrogate: bodies that do are refused when they are read."""
    return len(text) if text.isascii() else len(text.encode())


def rendered_length(value: object) -> int:
    """An upper bound on the bytes of `value` as a template's `tojson` writes it.

    Templates differ: some indent by four (Llama 3.1), Jinja and minijinja escape what HTML would misread. A string is
    what it is in JSON; a number no longer than JSON's.
    """
    text = json.dumps(value, ensure_ascii=False)
    html = sum(map(text.count, _HTML_SPECIAL))
    return utf8_length(text) + _HTML_ESCAPE_GROWTH * html + _indentation(value)


def _indentation(value: object) -> int:
    """Bytes of line ends and spaces that an indent of four adds."""
    total, depth = 0, 0
    level = inner_containers([[value]])
    while level:
        inner = 1 + _INDENT * (depth + 1)
        total += sum(len(container) * inner + inner - _INDENT for container in level)
        level, depth = inner_containers(level), depth + 1
    return total
