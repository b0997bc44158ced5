"""The jobs of gpu.py: evaluations and trainings of full size, each with the seconds that it may take, by worth."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import CIFAR, ROOT

JUDGING = 40  # seconds of a training's job for what it has come to
KEEPING = 30  # seconds of a training's job for putting its weights away
KEPT = "kept"  # folder of them, in a run
RUNS = "{runs}"
SMALLER = {  # networks of a rehearsal
    ("train-peer", "cnn"): ("--width", "8"),
    ("train-peer", "ddpm"): ("--network", "digits"),
    ("train", "--recipe"): ("--preset", "nano-encoder-bn"),
}
THIN = "models/cifar10-thin-pgd-at"
SLIM = "models/cifar10-slim-pgd-at"
PAPER = "models/idc-base-cifar10"
SMALL = "idc-nano-cifar10"
FIRST = "smoke"
PAIRS = (("nano-robust-adaptive-8", "thin-adaptive-8"),)  # compared image by image


@dataclass(frozen=True)
class Job:
    """An evaluation.

    Args:
        seconds: that it may take.
        model, protocol, eps, limit, block, batch, data: as of ``idc evaluate``; by default the data of all jobs.
            ``RUNS`` in the model stands for the folder of all jobs, in which those before it have trained.
        more: of its flags.
        after: trainings without which it cannot be done.
    """

    name: str
    seconds: int
    model: str
    protocol: str
    eps: str
    limit: int
    block: int
    batch: int
    data: str = ""
    more: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Of its result, in that of all jobs."""
        return self.name

    def asked(self) -> dict[str, Any]:
        """What its row says of it."""
        own = {"model": self.model, "protocol": self.protocol, "eps": self.eps, "images": self.limit}
        return {"job": self.name} | own

    def commands(self, data: str, out: Path, *, rehearsal: bool = False) -> list[list[str]]:
        """Its command line; in a rehearsal that of a small model, on two images."""
        model, limit = self.model.replace(RUNS, str(out)), self.limit
        if rehearsal:
            model, limit = (model if self.data or self.after else SMALL), 2
        given = ["--protocol", self.protocol, "--eps", self.eps, "--limit", limit, "--block", min(limit, self.block)]
        device = [] if rehearsal else ["--precision", "bf16", "--batch-size", self.batch]
        images = [self.data] if self.data else [data, "--data-name", CIFAR]
        started = [sys.executable, "-m", "idc.cli", "evaluate", model, "--data", *images]
        return [[str(part) for part in (*started, *given, *device, *self.more, "--out", out / self.name)]]


@dataclass(frozen=True)
class Training:
    """A training by the clock, whose best weights are judged on validation images by the protocol `quick` at 8/255, or
    kept for jobs after it.

    Trainings that are compared have the GPU for themselves: `--together 1 --only NAME ...`.

    Args:
        seconds: that both may take; the judging is left ``JUDGING`` of them.
        arguments: of ``idc``, but for data, minutes and folder.
        limit: validation images; 0: the weights are kept, and not judged.
    """

    name: str
    seconds: int
    arguments: tuple[str, ...]
    limit: int = 1000
    after: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Of its result, in that of all jobs."""
        return f"{self.name}/{'quick' if self.limit else KEPT}"

    def asked(self) -> dict[str, Any]:
        """What its row says of it."""
        judged = {"protocol": "quick", "eps": "8/255", "images": self.limit, "split": "validation"}
        return {"job": self.name, "training": " ".join(self.arguments)} | (judged if self.limit else {})

    def commands(self, data: str, out: Path, *, rehearsal: bool = False) -> list[list[str]]:
        """The training, then the evaluation; in a rehearsal of a small network on a few images."""
        idc, run = (sys.executable, "-m", "idc.cli"), out / self.name
        left = self.seconds - (JUDGING if self.limit else KEEPING)
        size: tuple[str, ...] = ("--minutes", f"{left / 60:.2f}")
        if rehearsal:
            size = (*SMALLER[self.arguments[:2]], "--limit", "64", "--epochs", "1", "--batch-size", "16",
                    "--validation-limit", "16", "--final-limit", "16")  # fmt: skip
        train = (*idc, *self.arguments, "--data", data, *size, "--out", run, "--resume")
        if not self.limit:
            keep = (sys.executable, Path(__file__).with_name("gpu.py"), "keep", "--only", self.name, "--out", out)
            return [[str(part) for part in command] for command in (train, keep)]
        limit, device = (2, ()) if rehearsal else (self.limit, ("--precision", "bf16", "--block", "1000"))
        judge = (*idc, "evaluate", run, "--data", data, "--data-name", CIFAR, "--split", "validation", "--protocol",
                 "quick", "--eps", "8/255", "--limit", limit, *device, "--out", out / self.folder)  # fmt: skip
        return [[str(part) for part in command] for command in (train, judge)]


def paper(name: str, seconds: int, protocol: str, eps: str, block: int = 512) -> Job:
    """An evaluation of the paper's network, whose gradient takes 512 images of an H100's memory at once."""
    return Job(name, seconds, PAPER, protocol, eps, 512, block, 512)


def whole(name: str, model: str) -> Job:
    """All test images, of a network so small that only thousands of images fill a GPU."""
    return Job(name, 400, model, "adaptive", "8/255", 10_000, 5_000, 5_000)


def beside(name: str, model: str, eps: str, data: str = "") -> list[Job]:
    """The same images under our protocol and under AutoAttack's library: see ``benchmarks/parity.py``."""
    return [Job(f"{name}-{own}", 300, model, own, eps, 512, 512, 512, data) for own in ("adaptive", "autoattack")]


def figure_4() -> list[Job]:
    """The paper's figure 4 with its network: PGD over steps and over eps, along the published probabilities (with fresh
    noise in each step) and along the one-step answer's inner products; other visits. What figure 4b compares, with and
    without the inter-class loss, has to be trained first: ``full_size.py paper-losses``."""
    found, published = [], ("--loss", "cross-entropy", "--surrogate")
    for line, function in (("published", "published"), ("smooth", "one-step-inner")):
        for steps in ("10", "40", "200"):  # 20 are those of base-paper-8 and of the job below
            job = paper(f"base-{line}-steps-{steps}", 200, "pgd", "8/255")
            found.append(replace(job, more=("--steps", steps, *published, function)))
        for eps in ("1", "2", "4", "8"):
            job = paper(f"base-{line}-eps-{eps}", 100, "pgd", f"{eps}/255")
            found.append(replace(job, more=(*published, function)))
    quick = [("3", "3"), ("3-0", "3,0"), ("3-2-1-0", "3,2,1,0")]
    visits = [replace(paper(f"base-visits-{n}", 150, "quick", "8/255"), more=("--visits", v)) for n, v in quick]
    return [*found, *visits]


_IDC = ("train", "--recipe", str(ROOT / "recipes" / "idc-base-cifar10-robust.yaml"))
_CNN = ("train-peer", "cnn", "--method", "pgd-at", "--attack-steps", "2", "--attack-step", "5/255", "--batch-size",
        "256", "--lr", "0.1", "--clip-norm", "5", "--ema-decay", "0.998")  # fmt: skip
_MUON = ("--optimizer", "muon", "--lr", "0.004", "--weight-decay", "0.05")
_TAUGHT = ("--rectify", "1,1", "--rectify-temperature", "2,2", "--teachers",
           str(ROOT / "models" / "cifar10-preact-pgd-at"))  # fmt: skip
_ADDED = {  # what is set beside a plain training against attacks, of the IDC and of the CNN alike
    "plain": (),
    "muon": _MUON,
    "muon-taught": (*_MUON, *_TAUGHT),
    "cutmix": ("--mix", "cutmix"),
    "branch": ("--strong-branch",),
    "rectified": ("--rectify", "0.7,0.95"),
    "trades-awp": ("--method", "trades", "--weight-perturbation", "0.005", "--awp-start", "0.05"),
}


def trainings() -> list[Training]:
    """Two steps of PGD at full size for the same seconds, an IDC and a PreActResNet-18, with one thing added."""
    return [
        Training(f"train-{side}-{name}", 190, (*arguments, *added))
        for name, added in _ADDED.items()
        for side, arguments in (("idc", _IDC), ("cnn", _CNN))
    ]


def nano() -> list[Training]:
    """The package's small network, with what keeps robustness from falling in the second half of a training."""
    recipe = ("train", "--recipe", str(ROOT / "recipes" / "idc-nano-cifar10-robust-v2.yaml"))
    perturbed = ("--weight-perturbation", "0.005", "--awp-start", "0.05")
    added = {
        "plain": (),
        "rectified": ("--rectify", "0.7,0.95"),
        "awp": perturbed,
        "rectified-awp": ("--rectify", "0.7,0.95", *perturbed),
        "smoothed-awp": ("--label-smoothing", "0.1", *perturbed),
    }
    return [Training(f"train-nano-{name}", 240, (*recipe, *more), 2000) for name, more in added.items()]


def diffusion_peers() -> list[Job | Training]:
    """A diffusion model of CIFAR-10 and a CNN trained without attacks, and what is made of them."""
    ddpm, cnn = "train-ddpm", "train-cnn-standard"
    network = f"ddpm={RUNS}/{ddpm}/{KEPT}"
    made = {
        "diffpure": f"diffpure:{network},classifier={RUNS}/{cnn}/{KEPT},depth=0.1,steps=5",
        "zdc": f"zdc:{network},timesteps=5",
        "rdc": f"rdc:{network},timesteps=5,maximise=5,budget=8/255",
    }
    return [
        Training(ddpm, 300, ("train-peer", "ddpm", "--conditional"), limit=0),
        Training(cnn, 80, ("train-peer", "cnn", "--method", "standard"), limit=0),
        *(
            Job(f"{name}-{protocol}", 300, model, protocol, "8/255", 128, 32, 128, after=(ddpm, cnn))
            for name, model in made.items()
            for protocol in ("adaptive", "paper")
        ),
    ]


JOBS: tuple[Job | Training, ...] = (
    Job(FIRST, 90, PAPER, "pgd", "8/255", 32, 32, 512, more=("--loss", "cross-entropy", "--surrogate", "answer")),
    paper("base-adaptive-8", 400, "adaptive", "8/255"),
    # Fifty steps of fifteen draws, and a thousand of Carlini and Wagner's: in blocks, so that some are whole.
    paper("base-paper-8", 600, "paper", "8/255", 128),
    whole("nano-robust-adaptive-8", "idc-nano-cifar10-robust"),
    whole("nano-robust-v2-adaptive-8", "idc-nano-cifar10-robust-v2"),
    whole("thin-adaptive-8", THIN),
    whole("nano-adaptive-8", SMALL),
    *beside("parity-digits-robust", "idc-digits-robust", "0.1", "digits"),
    *beside("parity-nano-robust", "idc-nano-cifar10-robust", "8/255"),
    *beside("parity-slim", SLIM, "8/255"),
    *beside("parity-thin", THIN, "8/255"),
    paper("base-adaptive-4", 300, "adaptive", "4/255"),
    paper("base-adaptive-2", 300, "adaptive", "2/255"),
    *nano(),
    *trainings(),
    *diffusion_peers(),
    *figure_4(),
)
