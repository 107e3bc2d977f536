"""MLX, by mlx-lm's server: Apple's chips, and CPUs for trying it out."""

from enginehouse.engines.mlx.descriptor import MlxEngine

__all__ = ["MlxEngine"]
