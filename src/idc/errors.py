"""One kind of error for everything that a user can put right."""

from collections.abc import Iterator
from contextlib import contextmanager

TRACEBACK = "IDC_TRACEBACK"  # set to anything: the command line prints where an error came from, too


class IDCError(Exception):
    """A mistake that the user can fix; the command line prints it as one line and exits with 2.

    Args:
        value: what was given (a path, a number, a name), as the user wrote it.
        expected: what would have been right.
        remedy: what to do next.
    """

    def __init__(self, value: object, expected: str, remedy: str) -> None:
        self.value, self.expected, self.remedy = str(value), expected, remedy
        super().__init__(_line(self.value, expected, remedy))

    def __reduce__(self) -> tuple[type["IDCError"], tuple[str, str, str]]:
        return type(self), (self.value, self.expected, self.remedy)


def _line(value: str, expected: str, remedy: str) -> str:
    """The error as one line of at most 500 characters."""
    line = " ".join(f"{value}: expected {expected}; {remedy}".split())
    return line if len(line) <= 500 else f"{cut(value, 170)}: expected {cut(expected, 180)}; {cut(remedy, 135)}"


@contextmanager
def foreign(name: str, expected: str, remedy: str = "correct it") -> Iterator[None]:
    """Around a call of code that users bring: what it raises becomes an ``IDCError`` with that as its cause.

    An ``IDCError``, an interrupt and a lack of memory pass as they are. Also a decorator.

    Args:
        name: of what is called, as the user knows it.
        expected: what it should be, such as "an attack that works".
        remedy: what to do; where it happened can be shown besides.
    """
    try:
        yield
    except (IDCError, MemoryError):
        raise
    except Exception as error:
        if lacks_memory(error):
            raise
        told = f"{expected} ({type(error).__name__}: {cut(str(error), 120)})"
        raise IDCError(name, told, f"{remedy}; {TRACEBACK}=1 shows where") from error


def lacks_memory(error: BaseException) -> bool:
    """Whether a GPU, or the machine, had too little memory: known by name and text, as nothing here imports torch."""
    text = str(error)
    return type(error).__name__ == "OutOfMemoryError" or any(
        own in text for own in ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def cut(text: str, most: int) -> str:
    """A text on one line of at most so many characters: its beginning and its end."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most // 2]}...{text[3 - most // 2 :]}"
