"""llama.cpp's own server program."""

from enginehouse.engines.llama_server.descriptor import LlamaServerEngine

__all__ = ["LlamaServerEngine"]
