"""What ``idc certify`` does: a model, data and randomised smoothing put together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from idc import data as datasets
from idc.commands.evaluate import at_work, circumstances, problem_of, processes
from idc.commands.opening import open_both
from idc.commands.request import Request
from idc.cost import answer_cost
from idc.evaluation.certificates import LINES, RESULT, Certifier, read_certified, summarise_certified
from idc.evaluation.smoothing import Smoothed, Smoothing
from idc.progress import Bar
from idc.storage import records
from idc.storage.kinds import CERTIFICATION

_LIBRARIES = ("torch", "scipy", "diffusers", "accelerate")


def certify(
    request: Request, smoothing: Smoothing, out: Path, *, say: Callable[[str], object] = print
) -> dict[str, Any]:
    """Certify images around a smoothed classifier; what is already done in ``out`` is not done again. Under
    ``accelerate launch`` the images are shared out over the processes.

    Args:
        request: the model, its answer and the data; what it says of attacks and draws is not used.
        smoothing: how the classifier is asked.
        out: folder of the result.
        say: is told the largest radius that these settings can prove, and what is done already.

    Returns:
        The summary, as in ``out/certify.json``; that of a finished run as it is. None in processes but the first.

    Raises:
        IDCError: if model and data do not fit, or ``out`` cannot be written or holds another result.
    """
    state, device = processes()
    classifier, images = open_both(request, device)
    certifier = Certifier(
        Smoothed(classifier, smoothing, request.batch_size), problem_of(request, images), out, request.model,
        seed=request.seed, rank=state.process_index, world=state.num_processes, device=device,
    )  # fmt: skip
    with at_work(out, state, kind=CERTIFICATION):
        if state.is_main_process:
            certifier.prepare()
            say(images.summary)
            say(
                f"{smoothing.n:,} samples at alpha {smoothing.alpha:g} and sigma {smoothing.sigma:g} prove an L2 "
                f"radius of {smoothing.largest_radius:.4g} at most"
            )
            if done := len(records.finished(out, LINES)):
                say(f"{done} of {len(images)} images are already done")
        state.wait_for_everyone()
        if finished := certifier.finished():
            return finished if state.is_main_process else {}
        with Bar("images", total=len(certifier.own), quiet=not state.is_main_process) as bar:
            certifier.run(bar.advance)
        state.wait_for_everyone()
        return _summarise(request, certifier, images) if state.is_main_process else {}


def _summarise(request: Request, certifier: Certifier, images: datasets.ImageSet) -> dict[str, Any]:
    lines, smoothing = read_certified(certifier.out), certifier.smoothed.smoothing
    answer = answer_cost(certifier.smoothed.base, certifier.device)
    samples = smoothing.n0 + smoothing.n
    around = circumstances(request, certifier.smoothed.base, certifier.device, certifier.world, _LIBRARIES)
    summary = {"kind": "certify"} | summarise_certified(lines, smoothing) | {
        "class_names": list(images.class_names),
        "cost": {
            "samples": samples,
            "network_evaluations": samples * answer["network_evaluations"],
            "flops": samples * answer["flops"],
            "seconds": sum(line["seconds"] for line in lines) / len(lines),
        },
        "answer": answer,
        "settings": certifier.settings() | around,
    }  # fmt: skip
    return records.write(certifier.out / RESULT, summary)
