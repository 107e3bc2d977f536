"""Money as people read it."""

from decimal import Decimal

from enginehouse.router import NANOUSD_PER_USD


def usd(nanousd: int) -> str:
    """Nano-USD as USD, exactly, without zeros that say nothing: "0.2", "0.000014"."""
    text = f"{Decimal(nanousd) / NANOUSD_PER_USD:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
