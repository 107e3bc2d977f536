"""Settings: flag over environment over file over default, validated with messages that say where."""

from enginehouse.services.settings.load import FILE_NAME, find_file, load
from enginehouse.services.settings.model import Settings

__all__ = ["FILE_NAME", "Settings", "find_file", "load"]
