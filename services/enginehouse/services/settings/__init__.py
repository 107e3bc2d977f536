"""Settings: flag over environment over file over default, validated with messages that say where."""

from enginehouse.services.settings.load import FILE_NAME, WrittenPolicies, find_file, load, load_policies
from enginehouse.services.settings.model import Settings
from enginehouse.services.settings.policy_messages import POLICY_SET
from enginehouse.services.settings.policy_yaml import policy_text, residency_text, rule_text
from enginehouse.services.settings.references import catalog_of

__all__ = [
    "FILE_NAME",
    "POLICY_SET",
    "Settings",
    "WrittenPolicies",
    "catalog_of",
    "find_file",
    "load",
    "load_policies",
    "policy_text",
    "residency_text",
    "rule_text",
]
