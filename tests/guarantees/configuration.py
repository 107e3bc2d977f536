"""What is run: which mesh, how many requests at once, and what is killed under them."""

from dataclasses import dataclass
from enum import Enum

TERM_S = 15
CHECK_TIMEOUT_MS = 5000
LONGEST_REQUEST_S = 30
CANARY = "canary"
_ROUTER = "router-{}"


class Database(Enum):
    """What the ledger is in."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


class Kill(Enum):
    """What gets SIGKILL under load."""

    NOTHING = "none"
    ROUTER = "router"
    GATEWAY = "gateway"
    ENVOY = "envoy"

    @property
    def is_of_the_door(self) -> bool:
        """Whether Envoy dies, and what it had in flight is unknown."""
        return self in (Kill.GATEWAY, Kill.ENVOY)


@dataclass(frozen=True, slots=True)
class MeshKind:
    """One kind of mesh."""

    database: Database
    routers: int


@dataclass(frozen=True, slots=True)
class Configuration:
    """One run."""

    mesh: MeshKind
    requests: int
    kill: Kill


def every_configuration() -> dict[MeshKind, list[Configuration]]:
    """All that `make guarantees` runs, by mesh. Those that kill the door come last: their doubt takes longest."""
    meshes = [MeshKind(database, routers) for database in Database for routers in (1, 3)]
    return {mesh: [Configuration(mesh, *run) for run in _runs(mesh)] for mesh in meshes}


def _runs(mesh: MeshKind) -> list[tuple[int, Kill]]:
    runs = [(requests, kill) for requests in (10, 100, 1000) for kill in (Kill.NOTHING, Kill.ROUTER)]
    return [*runs, (100, Kill.GATEWAY), (100, Kill.ENVOY)] if mesh.routers > 1 else runs


def router_names(mesh: MeshKind) -> list[str]:
    """The routers' names."""
    return [_ROUTER.format(number) for number in range(mesh.routers)]


def settings_of(mesh: MeshKind, database_url: str) -> str:
    """The settings file of such a mesh. Terms are short, so that doubt ends within a run.

    Args:
        database_url: PostgreSQL's. Empty: SQLite in the mesh's own folder.
    """
    routers = "".join(f"\n  - {{name: {name}}}" for name in router_names(mesh))
    deployments = "".join(
        _DEPLOYMENT.format(name=f"{tariff}-{part}", price=price, speed=40)
        for tariff, price in (("tokens", "{input: 1, output: 2}"), ("calls", "{request: 0.001}"))
        for part in ("whole", "cut")
    )
    deployments += _DEPLOYMENT.format(name=CANARY, price="{request: 0.001}", speed=0)
    return _MESH.format(
        term_s=TERM_S,
        longest_s=LONGEST_REQUEST_S,
        check_ms=CHECK_TIMEOUT_MS,
        database_url=f", database_url: {database_url!r}" if database_url else "",
        routers=routers,
        deployments=deployments,
    )


_MESH = """\
place: eu/de
door: {{port: 0, longest_request_s: {longest_s}, check_timeout_ms: {check_ms}, drain_grace_s: 1}}
nats: {{port: 0}}
control: {{allowance_term_s: {term_s}{database_url}}}
routers:{routers}
nodes:
  - {{name: eu-de, place: eu/de, drain_grace_s: 1}}
deployments:{deployments}
"""
_DEPLOYMENT = """
  - name: {name}
    engine:
      kind: echo
      context_tokens_max: 4096
      output_tokens_max: 256
      parallel: 2048
      arguments: [--test-controls, --tokens-per-second, "{speed}"]
    placements:
      - {{node: eu-de, price: {price}, in_flight_max: 2048}}
"""
