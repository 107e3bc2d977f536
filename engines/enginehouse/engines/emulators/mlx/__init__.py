"""mlx_lm.server, as of 0.32.2."""

from enginehouse.engines.emulators.mlx.emulation import MlxEmulation

__all__ = ["MlxEmulation"]
