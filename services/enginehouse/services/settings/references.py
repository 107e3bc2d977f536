"""What one part of the settings says of another: places that exist, names that are declared."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from zoneinfo import available_timezones

from enginehouse.contract import RequestError
from enginehouse.services.settings.model import Settings

Keys = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and the keys that lead to it from the top of the file."""

    keys: Keys
    message: str


def problems(settings: Settings) -> list[Problem]:
    """Everything that is wrong between the parts of settings whose every part is right."""
    return [*_places(settings), *_deployments(settings), *_tenants(settings), *_limits(settings)]


def _places(settings: Settings) -> Iterator[Problem]:
    tree = settings.jurisdictions()
    yield from _read(tree.place, settings.place, ("place",))
    for index, node in enumerate(settings.nodes):
        yield from _read(tree.place, node.place, ("nodes", index, "place"))
    for index, tenant in enumerate(settings.tenants):
        for list_name, names in (("allow", tenant.residency.allow), ("deny", tenant.residency.deny)):
            for position, name in enumerate(names):
                yield from _read(tree.jurisdiction, name, ("tenants", index, "residency", list_name, position))


def _deployments(settings: Settings) -> Iterator[Problem]:
    nodes = [node.name for node in settings.nodes]
    tenants = [tenant.name for tenant in settings.tenants]
    for index, deployment in enumerate(settings.deployments):
        for position, placement in enumerate(deployment.placements):
            keys = ("deployments", index, "placements", position, "node")
            yield from _declared(placement.node, nodes, "nodes", keys)
        for position, tenant in enumerate(deployment.tenants):
            yield from _declared(tenant, tenants, "tenants", ("deployments", index, "tenants", position))


def _tenants(settings: Settings) -> Iterator[Problem]:
    models = [name for one in settings.deployments for name in (one.public_model, *one.aliases)]
    for index, tenant in enumerate(settings.tenants):
        for position, model in enumerate(tenant.models):
            yield from _declared(model, models, "deployments", ("tenants", index, "models", position))


def _limits(settings: Settings) -> Iterator[Problem]:
    declared = {
        "tenant": [tenant.name for tenant in settings.tenants],
        "model": [one.public_model for one in settings.deployments],
        "deployment": [one.name for one in settings.deployments],
    }
    for index, limit in enumerate(settings.limits):
        kind, _, rest = limit.scope.partition("/")
        if kind in declared:
            name = rest.split("/")[0] if kind == "tenant" else rest
            yield from _declared(name, declared[kind], f"{kind}s", ("limits", index, "scope"))
        if limit.time_zone not in available_timezones():
            yield Problem(("limits", index, "time_zone"), f"{limit.time_zone!r} is not an IANA time zone")


def _declared(name: str, known: list[str], section: str, keys: Keys) -> Iterator[Problem]:
    if name not in known:
        yield Problem(keys, f"{name!r} is not declared in {section}; declared are: {', '.join(known) or 'none'}")


def _read(read: Callable[[str], object], value: str, keys: Keys) -> Iterator[Problem]:
    try:
        read(value)
    except RequestError as error:
        yield Problem(keys, error.message)
