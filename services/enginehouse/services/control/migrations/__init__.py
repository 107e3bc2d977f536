"""The schema's history."""

from enginehouse.services.control.migrations.upgrade import upgrade

__all__ = ["upgrade"]
