"""Results of evaluations made by hand: a summary, pictures, folders of them."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def share(mean: float, n: int = 100) -> dict[str, float]:
    return {"mean": mean, "low": max(mean - 0.05, 0), "high": min(mean + 0.05, 1), "n": n}


def verdict(mean: float, draws: int = 10) -> dict[str, object]:
    return {"mean": share(mean), "majority": share(mean), "worst_of_n": share(mean / 2), "draws": draws}


NAMES = ["cat", "<script>alert(1)</script> --> $\\frac$"]


def summary(protocol: str = "adaptive", eps: float = 8 / 255, robust: float = 0.1234, **more) -> dict:
    attacks = {"adaptive": {"adaptive": 0.13}, "paper": {"fgsm": 0.55, "pgd-20": 0.4, "cw-l2": 0.95}, "clean": {}}
    threat = {"norm": "linf", "eps": eps, "bounds": {"lower": 0.0, "upper": 1.0}}
    described = {name: {"kind": "Attack", "threat": {"kind": "Threat"}, "steps": 7, "objective": {"kind": "Margin"}}
                 for name in attacks[protocol]}  # fmt: skip
    found = {
        "clean": verdict(0.8), "noise": verdict(0.79), "robust": verdict(robust), "protocol": protocol,
        "attacks": {name: verdict(v) | {"attacked": 90} for name, v in attacks[protocol].items()}, "adaptive":
        protocol == "adaptive", "reliable": True, "images": 100, "draws": 10, "single_draw": share(0.1), "flags": [],
        "sanity": [{"name": "a check", "passed": True, "figure": "fine", "remedy": "none"}] * (protocol == "adaptive"),
        "confusion": {"clean": [[40, 10, 0], [10, 40, 0]], "robust": [[5, 45, 0], [40, 5, 5]]}, "class_names": NAMES,
        "cost": {"forward": {"answer": 10.0}, "backward": {"answer": 5.0}, "flops": 2e9, "answers": 10.0,
                 "seconds": 0.25, "peak_flops_per_second": 1e11, "floor_seconds": 0.02, "ratio": 12.5,
                 "seconds_by_attack": {}},
        "answer": {"parameters": 1234567, "flops": 3e8, "stochastic": True},
        "labels": {"mean_distance": 0.517, "min_distance": 0.4, "max_cosine": 0.71, "max_cosine_centred": 0.0123},
        "settings": {"model": "runs/m", "visits": [3, 1, 0], "eta": 1.0, "seed": 0, "device": "cpu", "threads": 2,
                     "processes": 1, "versions": {"torch": "2"}, "data": {"source": "toys", "split": "test"},
                     "protocol": {"name": protocol, "threat": threat, "attacks": described, "gate": True}},
    }  # fmt: skip
    return found | more


def own_answers() -> dict:
    """What a clean evaluation says beside ``summary``: 40 and 45 of 50 right, and one answer that is none."""
    bins = [{"low": 0.5, "n": 30, "confidence": 0.55, "accuracy": 0.5}, {"low": 0.9, "n": 70, "confidence": 0.95,
            "accuracy": 1.0}]  # fmt: skip
    mistakes = [{"id": 3, "class": 0, "answer": 1, "confidence": 0.987}, {"id": 1, "class": 1, "answer": 0,
                "confidence": 0.6}]  # fmt: skip
    own = {"answer": "mean distance over 10 draws", "accuracy": share(0.8512), "confusion": [[40, 9, 1], [5, 45, 0]],
           "calibration": {"calibrated": False, "ece": 0.0512, "bins": bins}, "mistakes": mistakes}  # fmt: skip
    accuracy = {"own answer, mean distance over 10 draws": share(0.8512), "one-step": share(0.7777)}
    return {"own": own, "accuracy": accuracy, "protocol": "clean"}


def write_result(folder: Path, *, panel: int = 0, **settings) -> Path:
    """A finished evaluation in ``folder``, with pictures of ``panel`` images; see ``summary``."""
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary(**settings)))
    if panel:
        random = np.random.default_rng(0)

        def images(*shape: int) -> np.ndarray:
            return random.random((*shape, 1, 8, 8), dtype=np.float32)

        names = ("clean", "adversarial", "clean_translation", "adversarial_translation", "clean_nearest",
                 "adversarial_nearest")  # fmt: skip
        own = {name: images(panel) for name in names} | {"labels": images(2), "clean_steps": images(panel, 3)}
        save_file(own, folder / "panel.safetensors")
        rows = [{"id": i, "class": 0, "clean": 0, "adversarial": 1} for i in range(panel)]
        (folder / "panel.json").write_text(json.dumps(rows))
    return folder


def write_sweep(folder: Path, setting: str, results: dict[float, float]) -> Path:
    """A sweep in ``folder``: the robust accuracy of each value."""
    rows = []
    for value, robust in results.items():
        eps = value if setting == "eps" else 8 / 255
        own = write_result(folder / f"{setting}-{value:g}", eps=eps, robust=robust)
        held = json.loads((own / "summary.json").read_text())
        kinds = ("clean", "noise", "robust", "cost")
        rows.append({"value": value, "text": f"{value:g}"} | {kind: held[kind] for kind in kinds})
    sweep = {"setting": setting, "protocol": "pgd", "model": "m", "rows": rows}
    (folder / "sweep.json").write_text(json.dumps(sweep))
    return folder
