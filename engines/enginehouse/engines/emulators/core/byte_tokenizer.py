"""A tokenizer that a client can load: one token for each byte, in the form of Hugging Face's tokenizer.json.

The gRPC faces speak in token ids, so their clients need the engine's tokenizer; the servers hand it out as a zip.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator

from enginehouse.engines.emulators.core.plan import BYTE_ID_MIN, EOS_ID, EOS_TEXT

PAD_ID, BOS_ID = 0, 1
VOCABULARY_SIZE = BYTE_ID_MIN + 256
_CHUNK_BYTES = 64 * 1024  # as smg-grpc-servicer 0.14
_SPECIALS = ((PAD_ID, "<pad>"), (BOS_ID, "<s>"), (EOS_ID, EOS_TEXT))
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def archive(context_tokens_max: int) -> bytes:
    """The tokenizer's files as a zip, the same every time."""
    files = {
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": context_tokens_max,
            "pad_token": "<pad>",
            "bos_token": "<s>",
            "eos_token": EOS_TEXT,
            "chat_template": _TEMPLATE,
        },
        "config.json": {"model_type": "llama", "vocab_size": VOCABULARY_SIZE, "eos_token_id": EOS_ID},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(zipfile.ZipInfo(name), json.dumps(content, ensure_ascii=False))
    return buffer.getvalue()


def chunks(data: bytes) -> Iterator[tuple[bytes, str]]:
    """The archive in pieces; the SHA-256 of the whole comes with the last one."""
    digest = hashlib.sha256(data).hexdigest()
    for start in range(0, len(data), _CHUNK_BYTES):
        is_last = start + _CHUNK_BYTES >= len(data)
        yield data[start : start + _CHUNK_BYTES], digest if is_last else ""


def _tokenizer() -> dict[str, object]:
    """Byte-level BPE without a merge."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocabulary = {text: number for number, text in _SPECIALS}
    vocabulary |= {_letter(byte): BYTE_ID_MIN + byte for byte in range(256)}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": text, **special} for number, text in _SPECIALS],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": None},
    }


def _letter(byte: int) -> str:
    """GPT-2's letter for a byte: itself if it can be seen, else the next unused letter from 256 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in visible:
        return chr(byte)
    hidden = [number for number in range(256) if number not in visible]
    return chr(256 + hidden.index(byte))
