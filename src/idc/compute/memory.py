"""What this process does with memory that it has freed."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def keep_freed_memory() -> None:
    """Let the process keep what it frees, for the next tensor, where the C library is glibc.

    By itself glibc takes every block above 32 MiB from the system and gives it back when it is freed, so that each
    large tensor of every step costs a page fault, and a page of zeros, for every 4 KiB: a third of the time of a
    gradient over 8 draws. For programs to call, at their start: it holds for the whole process. What the environment
    says of malloc has precedence.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    # Older ones allow 32 MiB at most. If none is taken, the other threshold alone would only stop glibc's own tuning.
    if libc.mallopt(_MMAP_THRESHOLD, 2**30) or libc.mallopt(_MMAP_THRESHOLD, 2**25):
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
