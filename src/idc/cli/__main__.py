"""``python -m idc.cli``, for launchers that take a module."""

from idc.cli import main

main()
