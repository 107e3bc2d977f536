"""vLLM, as of 0.32."""

from enginehouse.engines.emulators.vllm.emulation import VllmEmulation

__all__ = ["VllmEmulation"]
