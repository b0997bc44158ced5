"""Freed memory is kept: counted in page faults, not timed."""

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from idc.compute.memory import keep_freed_memory

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back at once")
FAULTS = """
import resource, sys
from idc.compute.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    before = faults()
    one, two = bytearray(48 << 20), bytearray(48 << 20)
    one[::4096] = two[::4096] = bytes(len(one) // 4096)
    del one, two
print(faults() - before)
"""


def faults(mode: str, **environment: str) -> int:
    own = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, mode], env=own | environment, capture_output=True, text=True, check=True
    )
    return int(run.stdout)


@GLIBC
def test_what_was_freed_is_taken_again():
    assert faults("keep") < 500
    assert faults("leave") > 10_000 // (os.sysconf("SC_PAGESIZE") // 4096)


@GLIBC
def test_the_environment_has_precedence():
    assert faults("keep", MALLOC_TRIM_THRESHOLD_="131072") > 10_000 // (os.sysconf("SC_PAGESIZE") // 4096)


@pytest.mark.parametrize(("largest", "settings"), [(2**30, [2**30, 2**31 - 1]), (2**25, [2**25, 2**31 - 1]), (0, [])])
def test_what_an_older_glibc_refuses(monkeypatch, largest, settings):
    """The limits of mallopt(3): what is taken, in order; the second threshold never alone."""
    taken = []

    class Libc:
        gnu_get_libc_version = None

        @staticmethod
        def mallopt(which, value):
            if which == -3 and value > largest:
                return 0
            taken.append(value)
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libc())
    for name in [n for n in os.environ if n.startswith("MALLOC_") or n == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    keep_freed_memory()
    assert taken == settings


def test_without_glibc_nothing_happens(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    keep_freed_memory()
