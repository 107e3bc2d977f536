"""What a policy may refer to."""

from collections.abc import Mapping
from dataclasses import dataclass

from enginehouse.router import Jurisdictions


@dataclass(frozen=True, slots=True)
class Catalog:
    """The names that exist.

    Attributes:
        jurisdictions: the tree, with the user's own groups.
        deployments: the public names of each, aliases too, by id. None: they are not known here and not looked at.
        tenants: resource names. None: likewise.
    """

    jurisdictions: Jurisdictions
    deployments: Mapping[str, frozenset[str]] | None = None
    tenants: frozenset[str] | None = None

    @property
    def models(self) -> frozenset[str] | None:
        """Every public name that a deployment answers to; None when they are not known here."""
        return None if self.deployments is None else frozenset().union(*self.deployments.values())
