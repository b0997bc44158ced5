"""Processes of the program, where a process is the point: killed, told to stop, one of several that work together.

They are forked from a server that has imported what takes long, once for all of them.
"""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch.distributed", "torch.utils.tensorboard", "diffusers.models.unets.unet_2d", "accelerate", "sklearn.datasets",
     "rich.progress", "idc.commands.train", "idc.commands.train_peers", "idc.commands.evaluate"]
)  # fmt: skip


Before = Callable[[], None] | None


def run(*args: object, processes: int = 1, before: Before = None) -> subprocess.CompletedProcess[str]:
    """Run ``idc ARGS`` in one process or several; the first one's exit code (-9: killed), and what all of them printed.

    ``before`` is called in each process before the program is; a function of a module, found by its name.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = ["idc", *map(str, args)]
    with TemporaryDirectory() as folder:
        started = []
        for rank in range(processes):
            env = {"CUDA_VISIBLE_DEVICES": ""}
            if processes > 1:  # as torchrun says it
                env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                env |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
            started.append(CONTEXT.Process(target=_program, args=(command, env, Path(folder, str(rank)), before)))
            started[-1].start()
        for process in started:
            process.join()
        texts = ["".join(Path(folder, f"{rank}.{name}").read_text() for rank in range(processes))
                 for name in ("out", "err")]  # fmt: skip
    return subprocess.CompletedProcess(command, started[0].exitcode, *texts)


def dies_in_a_line(name: str, after: int) -> None:
    """For ``before``: the process is killed in the middle of a line of a result file ``name-0.jsonl``, after it has
    appended to it ``after`` times."""
    from idc.storage import records

    append, appended = records.append, []

    def cut(file, rows):
        if file.name == f"{name}-0.jsonl" and len(appended) == after:
            with file.open("ab", buffering=0) as out:
                out.write(json.dumps(rows[0]).encode()[:30])
            os.kill(os.getpid(), signal.SIGKILL)
        appended.extend([1] * (file.name == f"{name}-0.jsonl"))
        append(file, rows)

    records.append = cut


def _program(command: list[str], env: dict[str, str], file: Path, before: Before) -> None:
    os.environ.update(env)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(file.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT), number)
    sys.argv = command
    if before:
        before()
    from idc import cli  # it looks at RANK

    cli.main()
