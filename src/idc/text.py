"""Numbers as people write them: 8/255 read and written."""


def fraction(text: str) -> float:
    """0.1 or 8/255. Raises ValueError or ZeroDivisionError for what is no number."""
    over, slash, under = text.partition("/")
    return float(over) / float(under) if slash else float(over)


def default_eps(norm: str, size: int, channels: int) -> float:
    """8/255 (L-inf) or 0.5 (L2) for colour images; 0.1 or 1.0 for grey ones, whose strokes are coarse."""
    if norm == "linf":
        return 8 / 255 if channels > 1 else 0.1
    return 0.5 if channels > 1 else 1.0


def eps_text(eps: float) -> str:
    """8/255 or 0.5/255 where it is a whole number of half 255ths, else the number."""
    halves = eps * 255 * 2
    whole = abs(halves - round(halves)) < 1e-6 * max(1, halves)
    return f"{round(halves) / 2:g}/255" if whole and len(f"{eps:g}") > 5 else f"{eps:g}"
