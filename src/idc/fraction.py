"""Numbers as people write them."""


def fraction(text: str) -> float:
    """0.1 or 8/255. Raises ValueError or ZeroDivisionError for what is no number."""
    over, slash, under = text.partition("/")
    return float(over) / float(under) if slash else float(over)
