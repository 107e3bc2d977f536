"""Command lines put together from parts that may be missing."""


def option(name: str, value: object) -> tuple[str, ...]:
    """The option with its value; nothing when the value is none, empty or 0."""
    return (name, f"{value:g}" if isinstance(value, float) else str(value)) if value else ()


def repeated(name: str, values: "list[str] | tuple[str, ...]") -> tuple[str, ...]:
    """The option once, with all of its values behind it; nothing without any."""
    return (name, *values) if values else ()
