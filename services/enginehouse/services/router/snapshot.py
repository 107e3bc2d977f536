"""The last view on disk, so that a router can start while NATS is away."""

import contextlib
import os
import struct
from collections.abc import Mapping
from pathlib import Path

_LENGTHS = struct.Struct(">II")


def write_snapshot(file: Path, entries: Mapping[str, bytes]) -> None:
    """Writes a bucket's entries, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".new")
    with temporary.open("wb") as stream:
        os.chmod(temporary, 0o600)  # noqa: PTH101 (hashes of keys are in it)
        for key, value in sorted(entries.items()):
            encoded = key.encode()
            stream.write(_LENGTHS.pack(len(encoded), len(value)) + encoded + value)
    temporary.replace(file)


def read_snapshot(file: Path) -> dict[str, bytes]:
    """The entries that were written last; empty when there are none or the file is damaged."""
    entries: dict[str, bytes] = {}
    with contextlib.suppress(FileNotFoundError, struct.error, UnicodeDecodeError):
        content = file.read_bytes()
        at = 0
        while at < len(content):
            key_length, value_length = _LENGTHS.unpack_from(content, at)
            at += _LENGTHS.size
            entries[content[at : at + key_length].decode()] = content[at + key_length : at + key_length + value_length]
            at += key_length + value_length
        return entries
    return {}
