"""The port of an emulator, whatever is spoken on it."""

from abc import ABC, abstractmethod


class Front(ABC):
    """A port."""

    @abstractmethod
    async def open(self) -> int:
        """Opens the port; its number."""

    @abstractmethod
    async def refuse_connections(self) -> None:
        """Takes no connection on any more; those that are at work go on."""

    @abstractmethod
    async def close(self) -> None:
        """Cuts what is left."""
