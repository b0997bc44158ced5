"""The command line: it parses, calls one library function and prints. Heavy imports wait until a command runs."""

import io
import os
import sys
import traceback
from contextlib import suppress
from typing import Annotated, Any

import typer

from idc import __version__
from idc.cli import certify, evaluate, train, use
from idc.cli.common import err, out
from idc.cli.help import App
from idc.compute.memory import keep_freed_memory
from idc.errors import TRACEBACK, IDCError, cut

_USAGE: Any = typer.BadParameter.__base__  # of whichever click typer brings
app = App(
    name="idc",
    pretty_exceptions_enable=False,
    help="Image-to-Image Diffusion Classifier: train it, attack it, find out what holds.",
)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"idc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


for part in (train, use, evaluate, certify):
    part.register(app)


def main() -> None:
    """Entry point of the ``idc`` program: a mistake of the user is one line and exit code 2."""
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that its encoding lacks is written out
    try:
        code = app(prog_name="idc", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except IDCError as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exception(error)
        err.print(f"idc: {error}")
        sys.exit(2)
    except _USAGE as error:  # a flag that there is not, say
        text, command = error.format_message(), error.ctx.command_path if error.ctx else "idc"
        if error.ctx and text == error.ctx.get_help():  # nothing was asked
            err.print(text)
        else:
            err.print(f"idc: {cut(' '.join(text.split()).rstrip('.'), 400)}; see {command} --help")
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("idc: interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        _leave_stdout()
        sys.exit(141)
    except OSError as error:  # of no file that we know how to speak of: stdout is full, say
        _leave_stdout()
        expected, remedy = f"what can be read and written ({error.strerror})", "check its place, permissions and room"
        err.print(f"idc: {IDCError(error.filename or 'output', expected, remedy)}")
        sys.exit(2)


def _leave_stdout() -> None:
    """Write no more there, not even at the end what is still waiting to be written."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
