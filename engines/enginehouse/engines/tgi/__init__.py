"""Hugging Face's Text Generation Inference, by its own launcher."""

from enginehouse.engines.tgi.descriptor import TgiEngine

__all__ = ["TgiEngine"]
