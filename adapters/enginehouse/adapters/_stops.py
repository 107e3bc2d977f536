"""Stop sequences cut off again, for engines that leave them in their text."""

from collections.abc import Sequence


class StopTrimmer:
    """Takes a text in pieces and gives it back up to the first stop sequence.

    What might be the beginning of one is held back until it is known.

    Args:
        stops: the stop sequences.

    Attributes:
        found: the one that came, if one did. Whatever comes after it is dropped.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.found = ""
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def feed(self, text: str) -> str:
        """Takes the next piece and returns what is sure to be text."""
        if self.found or not self._stops:
            return "" if self.found else text
        text = self._held + text
        begins = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if begins:
            at, self.found = min(begins, key=lambda begin: (begin[0], -len(begin[1])))
            self._held = ""
            return text[:at]
        keep = self._beginning_length(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back and is text after all, now that nothing more comes."""
        held, self._held = self._held, ""
        return held

    def _beginning_length(self, text: str) -> int:
        """Length of the longest end of `text` that may begin a stop sequence."""
        longest = max(len(stop) for stop in self._stops) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
