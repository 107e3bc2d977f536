"""The stream DECISIONS: records of decisions, and the snapshots that they were made on. See records.proto."""

from enginehouse.services.bus.events import token

DECISIONS_STREAM = "DECISIONS"
DECISIONS_SUBJECTS = "decisions.>"
RECORD, FLEET, POLICY = "record", "fleet", "policy"


def decisions_subject(place: str, router: str, what: str) -> str:
    """Where a router publishes what it decided: "decisions.<place>.<router>.<what>".

    The place comes second, so that a leaf node can keep it where it belongs.
    """
    return ".".join(("decisions", token(place or "nowhere"), token(router), what))
