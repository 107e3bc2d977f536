"""TGI's own dialect, of engines alone: `/generate_stream`, which says more than its routes of OpenAI's names."""

from enginehouse.adapters.tgi.client import TgiEngine
from enginehouse.adapters.tgi.read import StreamReader
from enginehouse.adapters.tgi.write import write_chat, write_generate

__all__ = ["StreamReader", "TgiEngine", "write_chat", "write_generate"]
