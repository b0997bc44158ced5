"""One kind of error for everything that a user can put right."""


class IDCError(Exception):
    """A mistake that the user can fix; the command line prints it as one line and exits with 2.

    Args:
        value: what was given (a path, a number, a name), as the user wrote it.
        expected: what would have been right.
        remedy: what to do next.
    """

    def __init__(self, value: object, expected: str, remedy: str) -> None:
        self.value, self.expected, self.remedy = str(value), expected, remedy
        super().__init__(" ".join(f"{self.value}: expected {expected}; {remedy}".split()))

    def __reduce__(self) -> tuple[type["IDCError"], tuple[str, str, str]]:
        return type(self), (self.value, self.expected, self.remedy)
