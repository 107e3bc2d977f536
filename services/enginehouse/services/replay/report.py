"""Compares decisions with what they would be, made again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf import json_format

from enginehouse.router import Decision, Jurisdictions, Replica, View, by_deployment
from enginehouse.router.record import request_from_message
from enginehouse.router.replay import decide_again, outcome_of
from enginehouse.router.snapshot import replicas_from_message
from enginehouse.services.replay.history import History
from enginehouse.services.router.desired import read_desired
from enginehouse.v1 import common_pb2, records_pb2

Rules = Callable[[dict[str, bytes]], dict[str, bytes]]
"""Puts other rules in the place of those that were in force: entries of the bucket `desired` in and out."""
_NOWHERE = "no labelled place"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One decision that would be another.

    Attributes:
        before, after: what was decided, and what would be.
        place_before, place_after: where the first choice is. Empty: it was refused.
        cost_before_nanousd, cost_after_nanousd: of the usage that is known, or else of the upper bound that was held.
    """

    record: records_pb2.DecisionRecord
    before: records_pb2.DecisionOutcome
    after: records_pb2.DecisionOutcome
    place_before: str
    place_after: str
    cost_before_nanousd: int
    cost_after_nanousd: int

    @property
    def is_moved(self) -> bool:
        """Served before and after, first on another replica."""
        return bool(self.before.replicas and self.after.replicas) and self.before.replicas[0] != self.after.replicas[0]

    @property
    def is_newly_refused(self) -> bool:
        """Served before, and refused now."""
        return bool(self.before.replicas) and not self.after.replicas

    @property
    def is_newly_served(self) -> bool:
        """Refused before, and served now."""
        return not self.before.replicas and bool(self.after.replicas)

    @property
    def changes_place(self) -> bool:
        """Served before and after, in places of different jurisdictions."""
        return bool(self.place_before and self.place_after) and self.place_before != self.place_after


@dataclass(slots=True)
class Report:
    """What became of all decisions.

    Attributes:
        total: decisions that could be made again.
        without_snapshot: decisions whose fleet or rules the stream does not hold any more.
        different: those that would be another, oldest first.
        cost_before_nanousd, cost_after_nanousd: over all that were made again.
    """

    total: int = 0
    without_snapshot: int = 0
    different: list[Comparison] = field(default_factory=list)
    cost_before_nanousd: int = 0
    cost_after_nanousd: int = 0

    @property
    def is_identical(self) -> bool:
        """Whether every decision is what it was."""
        return not self.different and not self.without_snapshot

    def moved(self) -> Counter[tuple[str, str]]:
        """How many requests go to another replica, by replica before and after."""
        return Counter((one.before.replicas[0], one.after.replicas[0]) for one in self.different if one.is_moved)

    def refused(self) -> Counter[tuple[str, str]]:
        """How many requests are refused that were served, by reason and rule."""
        return Counter((one.after.refusal, one.after.rule) for one in self.different if one.is_newly_refused)

    def served(self) -> Counter[tuple[str, str]]:
        """How many requests are served that were refused, by the reason and rule that refused them."""
        return Counter((one.before.refusal, one.before.rule) for one in self.different if one.is_newly_served)

    def places(self) -> Counter[tuple[str, str]]:
        """How many requests are served in another place, by place before and after."""
        return Counter((one.place_before, one.place_after) for one in self.different if one.changes_place)

    def to_json(self) -> dict[str, object]:
        """The whole report, for programs."""
        return {
            "decisions": self.total,
            "without_snapshot": self.without_snapshot,
            "different": len(self.different),
            "cost_before_nanousd": self.cost_before_nanousd,
            "cost_after_nanousd": self.cost_after_nanousd,
            "moved": _pairs(self.moved(), "from", "to"),
            "newly_refused": _pairs(self.refused(), "reason", "rule"),
            "newly_served": _pairs(self.served(), "reason", "rule"),
            "place_changes": _pairs(self.places(), "from", "to"),
            "changes": [
                {
                    "decision_id": one.record.decision_id,
                    "tenant": one.record.request.principal.tenant,
                    "model": one.record.request.model,
                    "before": _outcome_json(one.before),
                    "after": _outcome_json(one.after),
                }
                for one in self.different
            ],
        }


def compare(history: History, jurisdictions: Jurisdictions, rules: Rules | None = None) -> Report:
    """Makes every decision of `history` again.

    Args:
        jurisdictions: read the labels of places.
        rules: other rules than those that were in force. None: the same, and then nothing may be different.
    """
    report, views = Report(), _Views(history, jurisdictions, rules)
    for record in history.records:
        view = views.view(record)
        if view is None:
            report.without_snapshot += 1
            continue
        decision = decide_again(record, view)
        one = _compared(record, decision, view, history.usages.get(record.decision_id))
        report.total += 1
        report.cost_before_nanousd += one.cost_before_nanousd
        report.cost_after_nanousd += one.cost_after_nanousd
        if one.before != one.after:
            report.different.append(one)
    return report


class _Views:
    """Views by the versions of their halves."""

    def __init__(self, history: History, jurisdictions: Jurisdictions, rules: Rules | None) -> None:
        self._history = history
        self._jurisdictions = jurisdictions
        self._rules = rules
        self._known: dict[tuple[str, str], View] = {}

    def view(self, record: records_pb2.DecisionRecord) -> View | None:
        """What the decision was made on, with the rules of this replay. None: it is not known any more."""
        key = (record.fleet_version, record.policy_version)
        fleet, policy = self._history.fleets.get(key[0]), self._history.rules.get(key[1])
        if fleet is None or policy is None:
            return None
        if key not in self._known:
            entries = dict(policy.entries)
            desired = read_desired(self._rules(entries) if self._rules else entries, self._jurisdictions)
            self._known[key] = View(
                fleet_version=fleet.version,
                policy_version=policy.version,
                models=desired.models,
                replicas=by_deployment(replicas_from_message(fleet.replicas, self._jurisdictions)),
                policies=desired.policies,
                limits=desired.limits,
                here=tuple(self._jurisdictions.place_or_nowhere(label) for label in fleet.here),
            )
        return self._known[key]


def _compared(
    record: records_pb2.DecisionRecord, decision: Decision, view: View, usage: common_pb2.Usage | None
) -> Comparison:
    before, after = record.outcome, outcome_of(decision)
    was = _replica(view, record, before)
    becomes = decision.attempts[0] if decision.attempts else None
    return Comparison(
        record,
        before,
        after,
        place_before=_label(was),
        place_after=_label(becomes),
        cost_before_nanousd=_cost_nanousd(was, before, usage),
        cost_after_nanousd=_cost_nanousd(becomes, after, usage),
    )


def _replica(view: View, record: records_pb2.DecisionRecord, outcome: records_pb2.DecisionOutcome) -> Replica | None:
    first = next(iter(outcome.replicas), None)
    model = request_from_message(record.request).model
    return next((replica for replica in view.candidates(model) if replica.id == first), None)


def _label(replica: Replica | None) -> str:
    if replica is None:
        return ""
    return replica.place.label if replica.place else _NOWHERE


def _cost_nanousd(replica: Replica | None, outcome: records_pb2.DecisionOutcome, usage: common_pb2.Usage | None) -> int:
    if replica is None or replica.price is None:
        return 0
    if usage is None:
        return replica.price.cost_nanousd(outcome.input_tokens_max, outcome.output_tokens_max)
    return replica.price.cost_nanousd(
        usage.input_tokens, usage.output_tokens, min(usage.cached_input_tokens, usage.input_tokens)
    )


def _pairs(counter: "Counter[tuple[str, str]]", one: str, other: str) -> list[dict[str, object]]:
    return [{one: key[0], other: key[1], "requests": count} for key, count in counter.most_common()]


def _outcome_json(outcome: records_pb2.DecisionOutcome) -> dict[str, object]:
    return json_format.MessageToDict(outcome, preserving_proto_field_name=True)
