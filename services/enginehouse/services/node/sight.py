"""What the routers make of a node's replicas: each one that watches says which of them it sends requests to."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager


class RouterSight:
    """The routers that watch this node, and what they confirmed.

    Attributes:
        on_change: called when a router confirmed something else, came or went.
    """

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._watching: Counter[str] = Counter()
        self._confirmed: dict[str, frozenset[str]] = {}

    @contextmanager
    def watching(self, router: str) -> Iterator[None]:
        """The router watches inside. A name that is empty is nobody's."""
        if not router:
            yield
            return
        self._watching[router] += 1
        try:
            yield
        finally:
            self._watching[router] -= 1
            if self._watching[router] <= 0:
                del self._watching[router]
                self._confirmed.pop(router, None)
            self.on_change()

    def confirm(self, router: str, replicas: Collection[str]) -> None:
        """Takes in where a router sends requests. One that does not watch has nothing to say."""
        said = frozenset(replicas)
        if router in self._watching and self._confirmed.get(router) != said:
            self._confirmed[router] = said
            self.on_change()

    def all_use(self, replica_id: str) -> bool:
        """Whether every router that watches sends requests to a replica. True when none watches."""
        return all(replica_id in self._confirmed.get(router, ()) for router in self._watching)

    def any_uses(self, replica_id: str) -> bool:
        """Whether some router still does."""
        return any(replica_id in replicas for replicas in self._confirmed.values())
