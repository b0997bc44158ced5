"""The program as a user starts it, for the system tests: in this process, which has imported all that takes long."""

import io
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from idc import cli

# What an evaluation says of the machine's best rate costs a second here, and in bf16 on an old processor minutes.
BRIEFLY = {"size": 256, "seconds": 0.01}


def idc(*args: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``idc ARGS`` and return its exit code and what it printed, warnings included."""
    command, out, err = ["idc", *map(str, args)], io.StringIO(), io.StringIO()

    def warn(message, category, filename, lineno, file=None, line=None):
        err.write(warnings.formatwarning(message, category, filename, lineno, line))

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", command)
        patch.setattr(warnings, "showwarning", warn)
        for name, value in env.items():
            patch.setenv(name, value)
        if cwd:
            patch.chdir(cwd)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return subprocess.CompletedProcess(command, ended.value.code or 0, out.getvalue(), err.getvalue())


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("idc: ")
    for word in words:
        assert word in lines[0]
