"""Ports for engines, kept apart between all supervisors on one host."""

import socket
from typing import Self

from enginehouse.contract import InternalError, RequestError

_TRIES = 64


class ReservedPort:
    """A TCP port that is free for one engine.

    The engine binds it itself, so between our choice and its bind another supervisor could choose the same. Ours keep
    out of each other's way by holding the UDP port of the same number for as long as the reservation lasts: the kernel
    gives it to one socket only, on the whole host, and takes it back when the process dies, however it dies.
    """

    def __init__(self, host: str, number: int, mark: socket.socket) -> None:
        self.host = host
        self.number = number
        self._mark = mark

    @classmethod
    def reserve(cls, host: str = "127.0.0.1") -> Self:
        """A port of `host` that nothing listens on and no other supervisor has reserved.

        Raises:
            InternalError: there is none.
        """
        for _ in range(_TRIES):
            number = _free_tcp_port(host)
            mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                mark.bind((host, number))
            except OSError:
                mark.close()
                continue
            return cls(host, number, mark)
        raise InternalError(f"no free port on {host} after {_TRIES} tries; how many engines run on this host?")

    @classmethod
    def reserve_at(cls, number: int, host: str = "127.0.0.1") -> Self:
        """The port `number` of `host`.

        Raises:
            RequestError: something listens on it, or another supervisor has reserved it.
        """
        mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            mark.bind((host, number))
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an engine that ended may linger there
                probe.bind((host, number))
        except OSError as error:
            mark.close()
            raise RequestError(f"port {number} of {host} cannot be used: {error.strerror}; choose another") from error
        return cls(host, number, mark)

    @property
    def is_released(self) -> bool:
        """It was given back."""
        return self._mark.fileno() < 0

    @property
    def is_free(self) -> bool:
        """Whether an engine could listen there now: a stranger knows nothing of our reservation."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            try:
                probe.bind((self.host, self.number))
                probe.listen()
            except OSError:
                return False
        return True

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self.host}:{self.number}"

    def release(self) -> None:
        """Gives the port back."""
        self._mark.close()


class PortChoice:
    """Reserves ports for one engine: the one that was chosen for it first, then free ones.

    Args:
        number: the chosen one. 0: any.
    """

    def __init__(self, number: int = 0) -> None:
        self._number = number
        self._chosen: ReservedPort | None = None

    def __call__(self) -> ReservedPort:
        """The next port.

        Raises:
            RequestError: the chosen one is in use.
            InternalError: none is free.
        """
        if not self._number or (self._chosen is not None and not self._chosen.is_released):
            return ReservedPort.reserve()
        self._chosen = ReservedPort.reserve_at(self._number)
        return self._chosen


def _free_tcp_port(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        number: int = probe.getsockname()[1]
        return number
