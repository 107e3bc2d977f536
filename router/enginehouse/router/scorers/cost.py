"""How cheap a replica is among those that are left."""


def cost_score(cost_nanousd: int, cheapest_nanousd: int) -> float:
    """1 for the cheapest upper bound, and for the others its share in theirs."""
    return cheapest_nanousd / cost_nanousd if cost_nanousd > cheapest_nanousd else 1.0
