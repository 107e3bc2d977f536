"""Envoy's access log: what was used, and how requests ended."""

from enginehouse.services.access_log.record import AccessRecord

__all__ = ["AccessRecord"]
