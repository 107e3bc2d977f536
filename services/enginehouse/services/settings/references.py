"""What one part of the settings says of another: places that exist, names that are declared."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from enginehouse.contract import RequestError
from enginehouse.router import Jurisdictions
from enginehouse.router.jurisdiction import GROUPS
from enginehouse.services.policies import Catalog, policy_problems, policy_set_problems
from enginehouse.services.settings.model import Limit, Settings
from enginehouse.services.settings.policy_messages import (
    body_keys,
    policy_message,
    policy_set_message,
    set_keys,
    tenant_name,
)
from enginehouse.services.settings.source import Keys


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and the keys that lead to it from the top of the file."""

    keys: Keys
    message: str


def problems(settings: Settings) -> list[Problem]:
    """Everything that is wrong between the parts of settings whose every part is right."""
    found = _groups(settings)
    if found:
        return found  # places cannot be read without them
    return [
        *_places(settings),
        *_deployments(settings),
        *_policies(settings),
        *_limits(settings),
    ]


def catalog_of(settings: Settings) -> Catalog:
    """What policies may refer to, as these settings declare it."""
    return Catalog(
        settings.jurisdiction_tree,
        {one.name: frozenset((one.public_model, *one.aliases)) for one in settings.deployments},
        frozenset(tenant_name(tenant.name) for tenant in settings.tenants),
    )


def _groups(settings: Settings) -> list[Problem]:
    own = settings.jurisdictions.groups
    found: list[Problem] = []
    built_in = Jurisdictions()
    for name, members in own.items():
        keys: Keys = ("jurisdictions", "groups", name)
        if name in GROUPS:
            found.append(Problem(keys, f"group {name!r} is a built-in group already"))
            continue
        if not members:
            found.append(Problem(keys, f"group {name!r} has no members; to deny it would deny nothing"))
        for index, member in enumerate(members):
            if member.strip().lower().split("/")[0] not in own:
                found += _read(built_in.jurisdiction, member, (*keys, index))
    for name in own:
        reached = _reached(own, name)
        if any(one in GROUPS for one in reached):
            continue
        try:
            Jurisdictions({**GROUPS, **reached})
        except RequestError as error:
            # what a member does wrong is said at the member, and of a cycle once in every group that is in it
            if error.message.startswith(f"group {name!r}") and not any(one.keys[2] == name for one in found):
                found.append(Problem(("jurisdictions", "groups", name), error.message))
    return found


def _reached(groups: dict[str, list[str]], first: str) -> dict[str, frozenset[str]]:
    """The groups that `first` is made of, itself included."""
    reached: dict[str, frozenset[str]] = {}
    waiting = [first]
    while waiting:
        name = waiting.pop()
        if name in groups and name not in reached:
            reached[name] = frozenset(groups[name])
            waiting += [member.strip().lower().split("/")[0] for member in groups[name]]
    return reached


def _places(settings: Settings) -> Iterator[Problem]:
    tree = settings.jurisdiction_tree
    yield from _read(tree.place, settings.place, ("place",))
    for index, node in enumerate(settings.nodes):
        yield from _read(tree.place, node.place, ("nodes", index, "place"))


def _deployments(settings: Settings) -> Iterator[Problem]:
    nodes = [node.name for node in settings.nodes]
    tenants = [tenant.name for tenant in settings.tenants]
    for index, deployment in enumerate(settings.deployments):
        for position, placement in enumerate(deployment.placements):
            keys = ("deployments", index, "placements", position, "node")
            yield from _declared(placement.node, nodes, "nodes", keys)
        for position, tenant in enumerate(deployment.tenants):
            yield from _declared(tenant, tenants, "tenants", ("deployments", index, "tenants", position))


def _policies(settings: Settings) -> Iterator[Problem]:
    catalog = catalog_of(settings)
    for index, tenant in enumerate(settings.tenants):
        for problem in policy_problems(policy_message(tenant), catalog, ()):
            yield Problem(("tenants", index, *body_keys(problem.path)), problem.message)
    message = policy_set_message(settings.policies, settings.data_classes)
    for problem in policy_set_problems(message, catalog):
        yield Problem(set_keys(problem.path, settings.policies), problem.message)


def _limits(settings: Settings) -> Iterator[Problem]:
    declared = {
        "tenant": [tenant.name for tenant in settings.tenants],
        "model": [one.public_model for one in settings.deployments],
        "deployment": [one.name for one in settings.deployments],
    }
    earlier: defaultdict[tuple[str, str, str], list[Limit]] = defaultdict(list)
    now = datetime.now(UTC)
    for index, limit in enumerate(settings.limits):
        kind, _, rest = limit.scope.partition("/")
        if kind in declared:
            name = rest.split("/")[0] if kind == "tenant" else rest
            yield from _declared(name, declared[kind], f"{kind}s", ("limits", index, "scope"))
        if limit.ends is not None and limit.ends <= now:
            yield Problem(("limits", index, "end"), f"{limit.end} has passed: the limit would never count; take it out")
        for other in earlier[limit.scope, limit.unit, limit.window]:
            if _overlap(limit, other):
                yield Problem(
                    ("limits", index),
                    f"{limit.name!r} limits what {other.name!r} limits already ({limit.unit} of {limit.scope} in "
                    f"window {limit.window}); keep the one that is meant, or give them a start and an end apart",
                )
        earlier[limit.scope, limit.unit, limit.window].append(limit)


def _overlap(one: Limit, other: Limit) -> bool:
    ends_before = one.ends is not None and other.starts is not None and one.ends <= other.starts
    begins_after = other.ends is not None and one.starts is not None and other.ends <= one.starts
    return not ends_before and not begins_after


def _declared(name: str, known: list[str], section: str, keys: Keys) -> Iterator[Problem]:
    if name not in known:
        yield Problem(keys, f"{name!r} is not declared in {section}; declared are: {', '.join(known) or 'none'}")


def _read(read: Callable[[str], object], value: str, keys: Keys) -> Iterator[Problem]:
    try:
        read(value)
    except RequestError as error:
        yield Problem(keys, error.message)
