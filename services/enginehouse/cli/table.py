"""Where commands print tables."""

from rich.console import Console

_COLUMNS_WITHOUT_TERMINAL = 1000


def answer_console() -> Console:
    """As wide as the terminal. Without one, wide enough to cut nothing off: what is piped is read by programs."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_COLUMNS_WITHOUT_TERMINAL)
