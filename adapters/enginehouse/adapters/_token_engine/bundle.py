"""The files of an engine's tokenizer: fetched from the engine, or read from its folder. Nothing is written to disk."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from enginehouse.adapters._token_engine.channel import EngineChannel
from enginehouse.contract import EngineError
from enginehouse.v1 import engine_tokenizer_pb2

ARCHIVE_BYTES_MAX = 128 * 1024 * 1024
# Gemma's, with 262,144 tokens, is 33 MB.
FILE_BYTES_MAX = 256 * 1024 * 1024
_TOKENIZER = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
# Where the template is: a file of its own wins over the configuration, as in transformers.
_TEMPLATE = "chat_template.jinja"
_TEMPLATE_JSON = "chat_template.json"
_Read = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What a tokenizer is made of; empty where there is no such file.

    Attributes:
        tokenizer: tokenizer.json, the whole of it in Hugging Face's format.
        config: tokenizer_config.json.
        template: chat_template.jinja.
        template_json: chat_template.json, its older form.
    """

    tokenizer: bytes
    config: bytes
    template: bytes
    template_json: bytes


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip of such files, and its SHA-256, hexadecimal."""

    data: bytes
    sha256: str


async def fetch_archive(channel: EngineChannel, method: str) -> Archive:
    """The zip that the engine hands out.

    Raises:
        EngineError: it hands out none, more than 128 MiB, or not what its SHA-256 says.
    """
    request = engine_tokenizer_pb2.EngineTokenizerRequest()
    call = channel.open(method, request, engine_tokenizer_pb2.EngineTokenizerChunk, {})
    archive, digest = bytearray(), ""
    try:
        async for chunk in channel.messages(call):
            archive += chunk.data
            digest = chunk.sha256 or digest
            if len(archive) > ARCHIVE_BYTES_MAX:
                raise EngineError(
                    f"the engine {channel.engine} hands out a tokenizer of over {ARCHIVE_BYTES_MAX} bytes"
                )
    finally:
        call.cancel()
    found = hashlib.sha256(archive).hexdigest()
    if digest and found != digest.lower():
        raise EngineError(f"the engine {channel.engine} hands out a tokenizer that does not match its SHA-256")
    return Archive(bytes(archive), found)


def unpack(archive: bytes, engine: str) -> TokenizerFiles:
    """The files in a zip. Only names that are known are looked at, and nothing is unpacked to disk.

    Raises:
        EngineError: it is no zip, or holds a file that is too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as bundle:
            return _files(lambda name: _member(bundle, name, engine))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise EngineError(f"the engine {engine} hands out a tokenizer that is no zip: {type(error).__name__}") from None


def read_folder(folder: Path, engine: str) -> TokenizerFiles:
    """The files in a folder.

    Raises:
        EngineError: it cannot be read, or holds a file that is too large.
    """
    try:
        return _files(lambda name: _file(folder / name, engine))
    except OSError as error:
        raise EngineError(f"the tokenizer of the engine {engine} cannot be read: {type(error).__name__}") from None


def _files(read: _Read) -> TokenizerFiles:
    tokenizer, config, template, template_json = (
        read(name) for name in (_TOKENIZER, _CONFIG, _TEMPLATE, _TEMPLATE_JSON)
    )
    return TokenizerFiles(tokenizer, config, template, template_json)


def _member(bundle: zipfile.ZipFile, name: str, engine: str) -> bytes:
    if name not in bundle.namelist():
        return b""
    with bundle.open(name) as file:  # what the directory says of a size is not believed
        return _checked(file.read(FILE_BYTES_MAX + 1), name, engine)


def _file(path: Path, engine: str) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return _checked(file.read(FILE_BYTES_MAX + 1), path.name, engine)


def _checked(content: bytes, name: str, engine: str) -> bytes:
    if len(content) > FILE_BYTES_MAX:
        raise EngineError(f"the engine {engine} has a {name} of over {FILE_BYTES_MAX} bytes")
    return content
