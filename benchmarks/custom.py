"""Runs attacks that are no protocol of their own over a model, resumably, as benchmarks need."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from idc.attacks.gradient import Attack
from idc.attacks.target import COUNTED
from idc.attacks.threat import Threat
from idc.commands.opening import open_both
from idc.commands.request import Request
from idc.evaluation.protocol import Protocol
from idc.evaluation.runner import Problem, Runner
from idc.evaluation.summary import read_costs, read_lines, summarise_lines
from idc.progress import Bar


def run(
    request: Request, name: str, threat: Threat, attacks: tuple[tuple[str, Attack], ...], out: Path
) -> dict[str, Any] | None:
    """The summary of all ``attacks``, each on every image; None in a process other than the first.

    Under torchrun the images are shared out over the processes.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=timedelta(days=1))
    classifier, images = open_both(request, torch.device("cpu"))
    about = {"source": request.data_name or request.data, "split": images.split, "fingerprint": images.fingerprint}
    problem = Problem(images.images, images.labels, images.ids, about)
    protocol = Protocol(name, threat, attacks, draws=request.draws or 20)
    runner = Runner(classifier, problem, protocol, out, request.model, rank=rank, world=world)
    if rank == 0:
        runner.prepare()
    if world > 1:
        torch.distributed.barrier()
    with Bar("images", total=len(problem), quiet=rank > 0) as bar:
        runner.run(bar.advance)
    if world > 1:
        torch.distributed.barrier()
    if rank:
        return None
    costs = read_costs(out)
    kinds = ("seconds", *COUNTED)
    per = {kind: {k: v / costs["images"] for k, v in costs[kind].items()} for kind in kinds}
    settings = runner.settings() | {"threads": torch.get_num_threads(), "processes": world}
    return summarise_lines(read_lines(out), images.class_names) | {"cost": per, "flags": costs["flags"],
                                                                   "settings": settings}  # fmt: skip
