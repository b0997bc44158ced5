"""Train a shipped model again by its recipe and evaluate it: what `make reproduce MODEL=NAME` runs.

    python benchmarks/reproduce.py NAME [--data D] [--data-name TEXT] [--out runs/NAME] [--processes N] [--rehearse N]

recipes/NAME.yaml says how to train, on which data (--data takes others), and at which eps and on how many test images
the paper's protocol and the adaptive one evaluate; clean accuracy is that of all test images. All of it is resumable:
the same command goes on. --rehearse N does every part in little, with N images of 16x16 pixels and a tiny network, to
see that it works; its figures mean nothing.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import CORES, together

from idc.cli.common import UNRELIABLE
from idc.errors import IDCError
from idc.storage.fields import Rule, short
from idc.text import eps_name, eps_text
from idc.training.recipe import load_recipe

RECIPES = Path(__file__).parents[1] / "recipes"
TINY = Path(__file__).with_name("rehearsal.yaml")
PROTOCOLS = ("adaptive", "paper")


def known() -> list[str]:
    """The names of all recipes."""
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def evaluation(file: Path) -> tuple[list[float], int]:
    """What a recipe says of the evaluation: each eps, and the number of test images.

    Raises:
        IDCError: if it does not say so.
    """
    _, extra = load_recipe(str(file))
    given: Any = extra.get("evaluate")
    where, said = (
        f" of evaluate in {file.name}",
        {"eps": Rule(tuple[float, ...], least=0, filled=True), "limit": Rule(int, least=1)},
    )
    if not isinstance(given, dict) or set(given) != set(said):
        raise IDCError(
            f"evaluate: {short(given)} in {file.name}", "eps: and limit:", "write what idc evaluate shall do"
        )
    eps, limit = (rule.value(name, given[name], where=where) for name, rule in said.items())
    return list(eps), limit


def plan(given: argparse.Namespace) -> Iterator[tuple[list[str], Path]]:
    """Every ``idc`` command line, and the folder of its result.

    Raises:
        IDCError: for a name without a recipe.
    """
    file, few = RECIPES / f"{given.name}.yaml", given.rehearse
    if given.name not in known():
        raise IDCError(f"model {given.name!r}", f"one of {', '.join(known())}", "write for example MODEL=idc-digits")
    eps, limit = evaluation(file)
    out = given.out or Path("runs") / (f"rehearsal-{given.name}" if few else given.name)
    recipe, extra = load_recipe(str(file))
    data = given.data or str(extra["data"])
    train = ["train", "--recipe", str(file), "--data", data, "--out", str(out), "--resume"]
    tiny = [
        *(["--teachers", "none"] if recipe.teachers else []),  # they are networks for larger images
        *([] if "from" in extra else ["--preset", str(TINY)]),
        *("--image-size", "16", "--epochs", "1", "--no-compile", "--limit", str(few)),
    ]
    yield [*train, *tiny] if few else train, out
    name = ["--data-name", given.data_name] if given.data_name else []
    test = ["evaluate", str(out), "--data", data, *name]
    clean = out / "evaluation" / "clean"
    yield [*test, "--out", str(clean), *(["--limit", str(few)] if few else [])], clean
    limited = ["--limit", str(few), "--draws", "2"] if few else ["--limit", str(limit)]
    for value in eps[:1] if few else eps:
        text = eps_text(value)
        for protocol in PROTOCOLS:
            result = out / "evaluation" / f"{protocol}-{eps_name(value)}"
            own = ["--steps", "2"] if few and protocol == "adaptive" else []
            kind = ["--protocol", protocol, "--eps", text, *limited, *own]
            yield [*test, *kind, "--out", str(result)], result


def run(command: list[str], processes: int) -> int:
    """Run ``idc`` in so many processes; its exit code. A signal is left to it, so that it can save and end."""
    launch, environment = together(processes)
    print("$ idc " + " ".join(command), flush=True)
    received: list[int] = []
    before = {n: signal.signal(n, lambda n, _: received.append(n)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = subprocess.Popen([*launch, "idc.cli", *command], env=environment)
        # Ctrl-C reaches every process of the terminal by itself; a SIGTERM only this one.
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        if signal.SIGTERM in received:
            process.terminate()
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def default_processes() -> int:
    """One with a GPU, else one a core: an evaluation shares out its images."""
    import torch

    return 1 if torch.cuda.is_available() else CORES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--data", help="in place of the recipe's")
    parser.add_argument("--data-name", help="what the records call the data")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--processes", type=int, help="of an evaluation; default: one a core, or one with a GPU")
    parser.add_argument("--rehearse", type=int, metavar="N")
    given = parser.parse_args()
    try:
        commands = list(plan(given))
    except IDCError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        sys.exit(2)
    many = given.processes or default_processes()
    for command, _ in commands:
        code = run(command, many if command[0] == "evaluate" else 1)
        if code not in (0, UNRELIABLE):
            print("reproduce: stopped; the same command goes on where this one was", file=sys.stderr)
            sys.exit(code if code > 0 else 128 - code)
    folders = [folder for _, folder in commands]
    print(f"the model: {folders[0] / 'best'}")
    for folder in folders[1:]:
        print(f"result: {folder / 'summary.json'}")
    print(f"a page of all: idc report {' '.join(map(str, folders[1:]))} --out {folders[0] / 'report.html'}")


if __name__ == "__main__":
    main()
