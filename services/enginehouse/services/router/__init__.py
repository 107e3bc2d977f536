"""The router process: checks, holds, settles, and tells Envoy what there is."""

from enginehouse.services.router.process import Router, RouterSettings

__all__ = ["Router", "RouterSettings"]
