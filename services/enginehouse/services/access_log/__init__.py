"""Envoy's access log: what was used, and how requests ended."""

from enginehouse.services.access_log.reader import read_entry, read_line, ticket_from_text, ticket_text
from enginehouse.services.access_log.record import AccessRecord

__all__ = ["AccessRecord", "read_entry", "read_line", "ticket_from_text", "ticket_text"]
