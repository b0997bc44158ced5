"""Train a model of full size on one GPU in a given number of seconds, and keep it with bf16 weights.

    python benchmarks/full_size.py idc-base-cifar10-robust --seconds 220 [--data D] [--out runs/full-size]

The seconds are those of the whole training, compiling and choosing the weights included, so that models are compared at
equal cost: the recipe's schedule follows the clock (`idc train --minutes`). OUT/NAME is an ordinary run, and
OUT/NAME/model what is evaluated:

    idc evaluate OUT/NAME/model --data D --protocol adaptive --eps 8/255 --limit 1000 --precision bf16 --block 1024

With --from MODEL the training begins with that model's weights, which must be of the same network and labels; its
optimiser and schedule begin anew.

    python benchmarks/full_size.py collect [--out runs/full-size]

writes what the trainings in OUT cost, and their validations, to benchmarks/results/full-size.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, read

from idc.commands.opening import open_model
from idc.commands.train import build_model, fresh_weights, load_splits
from idc.method.classifier import IDC
from idc.method.presets import resolve_spec
from idc.peers.cnn import CNN, CNNConfig
from idc.storage.fields import recorded
from idc.storage.files import write_json
from idc.storage.model_folder import change_card, split
from idc.training.bridge_objective import BridgeObjective
from idc.training.cnn_objective import CNNObjective
from idc.training.objective import TrainingObjective
from idc.training.recipe import CNN_RECIPES, load_recipe
from idc.training.settings import Settings, override
from idc.training.trainer import Trainer

HERE = Path(__file__).parent
RECIPES = {
    "idc-base-cifar10-robust": HERE.parent / "recipes" / "idc-base-cifar10-robust.yaml",
    "paper-losses": HERE / "full-size-paper.yaml",
}
# Wong, Rice and Kolter's cyclic rate; the steps of the attack, and what is validated, as for the IDC.
CNN_CHANGES: dict[str, Any] = {
    "method": "pgd-at", "lr": 0.1, "attack_steps": 2, "attack_step": 5 / 255, "batch_size": 256, "clip_norm": 5.0,
    "ema_decay": 0.998,
}  # fmt: skip
VALIDATIONS = 8
SHARD = 15_000_000  # bytes of a file


def prepare(
    name: str, data: str, say: Callable[[str], object], start: IDC | None = None
) -> tuple[Settings, Callable[[Settings], TrainingObjective], dict[str, Any]]:
    """The recipe of a model, what makes its objective anew, and what its card says; ``start`` has its first weights."""
    train, validation = load_splits(data, say=say)
    if name == "pgd-at":
        recipe: Settings = override(CNN_RECIPES["fast"], CNN_CHANGES)

        def cnn(recipe: Any) -> TrainingObjective:
            config = CNNConfig("preact-resnet18", train.num_classes, train.shape, 0, train.class_names)
            with fresh_weights(recipe):
                return CNNObjective(CNN(config), recipe)

        return recipe, cnn, {"data": data, "arch": "preact-resnet18", "width": 64, "splits": (train, validation)}
    recipe, extra = load_recipe(str(RECIPES[name]))
    spec = resolve_spec(extra["network"] if "network" in extra else extra["preset"])

    def bridge(recipe: Any) -> TrainingObjective:
        kind: Any = extra.get("labels", "qr")
        model = build_model(spec, train, recipe, labels=kind, cell=extra.get("label_cell", 1),
                            visits=extra.get("visits", ()))  # fmt: skip
        if start is not None:
            if model.config != start.config:
                raise SystemExit(f"--from holds {start.config}, and {name} is {model.config}")
            model.unet.load_state_dict(start.unet.state_dict())
        return BridgeObjective(model, recipe)

    about = {"data": data, "preset": extra.get("preset", "custom"), "network": recorded(spec)}
    about["splits"] = train, validation
    about |= {key: extra[key] for key in ("labels", "label_cell", "visits") if key in extra}
    return recipe, bridge, about


def collect(out: Path) -> None:
    """What the trainings below ``out`` cost, and every validation on their way; rows of others stay."""
    made = {file.parent.name for file in out.glob("*/cost.json")}
    results = RESULTS / "full-size.json"
    rows = [r for r in read(results)["rows"] if r["name"] not in made] if results.exists() else []
    for file in sorted(out.glob("*/cost.json")):
        run, summary = file.parent, read(file.with_name("summary.json"))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        validations = [line for line in lines if any(key.startswith("validation") for key in line)]
        rows.append({"name": run.name} | read(file) | {
            "seconds_of_training": summary["seconds"], "images_seen": summary["images_seen"],
            "chosen": summary["validation"], "validations": validations,
        })  # fmt: skip
    write_json(results, {"command": "python benchmarks/full_size.py collect", "rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*RECIPES, "pgd-at", "collect"])
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--from", dest="start", help="the model whose weights the training begins with")
    parser.add_argument("--data", default="runs/cifar10-jpeg")
    parser.add_argument("--out", type=Path, default=Path("runs/full-size"))
    given = parser.parse_args()
    if given.name == "collect":
        collect(given.out)
        return
    if (given.out / given.name / "recipe.yaml").exists():
        raise SystemExit(f"{given.out / given.name} holds a run: choose another --out")
    start: Any = open_model(given.start) if given.start else None
    recipe, objective, about = prepare(given.name, given.data, print, start)
    began = time.monotonic()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    train, validation = about.pop("splits")
    out = given.out / given.name
    about |= {"image_size": train.shape[1], "channels": train.shape[0]}
    recipe = replace(recipe, minutes=given.seconds / 60, validate_every=recipe.epochs / VALIDATIONS)
    trainer = Trainer(objective(recipe), recipe, train, validation, out, about=about, began=began)
    result = trainer.run()
    whole, trained = time.monotonic() - began, trainer.state.seconds
    model: Any = open_model(str(out))
    model.save_pretrained(out / "model", dtype="bf16")
    if start is not None:
        change_card(out / "model", {"Begun": f"with weights {start.card['Weights']}, {start.card['Training']}"})
    split(out / "model", SHARD)
    write_json(out / "cost.json", {
        "timed": "all steps, compiling and validations among them",
        "seconds": whole, "seconds_asked": given.seconds, "ms_a_step": 1e3 * trained / result.step,
        "before": whole - trained, "epochs": result.step * trainer.batch / len(train), "from": given.start,
        "batch_size": recipe.batch_size, "images_per_second": result.step * trainer.batch / trained,
        "device": trainer._machine(), "torch": torch.__version__,
    })  # fmt: skip
    print(f"{given.name}: {whole:.0f} s in all; {result.accuracy.text() if result.accuracy else ''}", flush=True)


if __name__ == "__main__":
    main()
