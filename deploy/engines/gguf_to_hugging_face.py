"""Makes the folder that vLLM and MLX load of the GGUF file that llama.cpp loads.

Usage: python gguf_to_hugging_face.py FILE FOLDER

For models of the architecture "llama" with a GPT-2 tokenizer, as SmolLM2. It runs in the engine's own environment and
needs gguf, numpy and tokenizers, but no torch. The weights become bfloat16.
"""

import json
import struct
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import gguf
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_CONTROL_TOKEN = 3  # gguf.TokenType.CONTROL
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hugging_face_name(name: str) -> str:
    """What transformers calls a tensor, for example "blk.0.attn_q.weight"."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_LAYER_NAMES[parts[2]]}.{parts[3]}"
    return f"{_OTHER_NAMES[parts[0]]}.{parts[1]}"


def unpermuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key projection in transformers' order: llama.cpp keeps the pairs of RoPE side by side."""
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def bfloat16(weights: np.ndarray) -> bytes:
    """The weights as bytes, rounded to the nearest even."""
    bits = np.ascontiguousarray(weights, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def write_tensors(path: Path, reader: gguf.GGUFReader, heads: Mapping[str, int]) -> None:
    """Writes every tensor as a safetensors file: the length of a JSON header, the header, the bytes.

    Args:
        path: of the file.
        reader: has the tensors.
        heads: of each projection whose rows llama.cpp has reordered, for example "attn_q".
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]  # GGUF counts the innermost dimension first
        begin, end = end, end + 2 * int(tensor.n_elements)
        header[hugging_face_name(tensor.name)] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in reader.tensors:
            weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            projection = tensor.name.split(".")[-2]
            file.write(bfloat16(unpermuted(weights, heads[projection]) if projection in heads else weights))


def tokenizer(tokens: list[str], kinds: list[int], merges: Iterable[str]) -> Tokenizer:
    """GPT-2's byte-level BPE; every digit stands alone, as the pre-tokenizer "smollm" has it."""
    made = Tokenizer(
        models.BPE({token: number for number, token in enumerate(tokens)}, [tuple(one.split(" ")) for one in merges])
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL_TOKEN]
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return made


def convert(file: Path, folder: Path) -> None:
    """Writes the model of `file` into `folder`, which is made."""
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if (fields["general.architecture"], fields["tokenizer.ggml.pre"]) != ("llama", "smollm"):
        sys.exit(f"{file} is no llama with SmolLM's tokenizer; this recipe converts nothing else")
    tokens = fields["tokenizer.ggml.tokens"]
    bos, eos, pad, unknown = (
        fields[f"tokenizer.ggml.{kind}_token_id"] for kind in ("bos", "eos", "padding", "unknown")
    )
    heads, kv_heads = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": fields["llama.block_count"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": fields["llama.rope.freq_base"],
        "tie_word_embeddings": not any(tensor.name == "output.weight" for tensor in reader.tensors),
        "vocab_size": len(tokens),
        **ids,
    }
    words = {
        "bos_token": tokens[bos],
        "eos_token": tokens[eos],
        "pad_token": tokens[pad],
        "unk_token": tokens[unknown],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": fields["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": fields["tokenizer.chat_template"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config", config), ("generation_config", ids), ("tokenizer_config", words)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    made = tokenizer(tokens, fields["tokenizer.ggml.token_type"], fields["tokenizer.ggml.merges"])
    made.save(str(folder / "tokenizer.json"))
    write_tensors(folder / "model.safetensors", reader, {"attn_q": heads, "attn_k": kv_heads})


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
