"""How a model is named: ``builtin:<name>``, a path, or a hub's ``<owner>/<name>``, each with details behind it.

``<owner>/<name>:<file>`` is one file of a hub's model, ``@<revision>`` a commit, tag or branch of it, and
``#sha256=<hex>`` the checksum of a model that is one file, as pip writes them.
"""

import re
from dataclasses import dataclass

from enginehouse.contract import RequestError

_HUB = re.compile(
    r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::(?P<file>[^@#:]+))?(?:@(?P<revision>[\w./-]+))?"
)
_CHECKSUM = re.compile(r"(?P<path>.*)#sha256=(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class HubSource:
    """A model on a hub. Without a file it is all of its files; without a revision it is the default branch."""

    repository: str
    file: str = ""
    revision: str = ""

    def __str__(self) -> str:
        """As it is written."""
        return self.repository + (f":{self.file}" if self.file else "") + (f"@{self.revision}" if self.revision else "")


def with_details(source: str, revision: str, sha256: str) -> str:
    """The source with its revision and checksum behind it, where there are any.

    Raises:
        RequestError: the source names another revision or checksum already, or the checksum is none.
    """
    if revision:
        if "@" in source:
            raise RequestError(f"model_source {source!r} names a revision, and so does model_revision {revision!r}")
        source = f"{source}@{revision}"
    if sha256:
        if "#" in source:
            raise RequestError(f"model_source {source!r} has a checksum, and so has model_sha256")
        if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
            raise RequestError(f"model_sha256 {sha256[:80]!r} is no SHA-256: give 64 hexadecimal digits")
        source = f"{source}#sha256={sha256.lower()}"
    return source


def split_checksum(source: str) -> tuple[str, str]:
    """The source without its checksum, and the checksum; an empty one where there is none."""
    match = _CHECKSUM.fullmatch(source)
    return (match["path"], match["sha256"]) if match else (source, "")


def hub_source(source: str) -> HubSource | None:
    """The hub's model that `source` names. None when it cannot be one, as with a path that begins with / or a dot."""
    match = _HUB.fullmatch(source)
    if match is None or any(part in ("", ".", "..") for part in (match["file"] or "f").split("/")):
        return None
    return HubSource(match["repository"], match["file"] or "", match["revision"] or "")
