"""Put a trained model into the package or another folder, with a card filled from files.

    python benchmarks/zoo.py add RUN NAME [--figures FILE ...] [--data-name TEXT] [--visits 3] [--into src/idc/zoo]
    python benchmarks/zoo.py calibrate FOLDER --data D [--limit N]

RUN is the folder of a finished training (best/, summary.json, recipe.yaml). Figures are benchmarks/results/*.json of
benchmarks/robustness.py or summary.json files of `idc evaluate`; those under RUN/evaluation, which `make reproduce`
writes, are taken by themselves. A figure is refused unless it was measured with the run's weights, as they are or as
they are rounded here. The folder is written anew each time, so give all figures each time. Weights are of
3 MB at most, but for a model that is to lie elsewhere, --into models --shard 15000000. `calibrate` gives a model that
was trained before there was one its calibration, on the validation images of its data.
"""

import argparse
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from idc import IDC, data
from idc.commands.request import Request
from idc.errors import IDCError
from idc.evaluation.identity import model_fingerprint
from idc.method.calibration import FACT
from idc.report.comparison import NORMS
from idc.report.rows import made_checks
from idc.storage.fields import recorded, rules
from idc.storage.files import whole_folder, write_text
from idc.storage.locate import HOME
from idc.storage.model_folder import CARD, WEIGHTS, change_card, split
from idc.storage.records import read_json
from idc.storage.yaml_file import read_yaml
from idc.text import eps_text, share
from idc.training.bridge_objective import BridgeObjective
from idc.training.recipe import Recipe

LARGEST = 3_000_000  # bytes of weights
ELSEWHERE = ("data", "network", "image_size", "channels")  # of recipe.yaml: what the config or another line says


def evaluations(files: list[Path]) -> list[dict[str, Any]]:
    """The evaluations in the files: protocol, clean, robust, attacks, images, sanity, settings of each.

    Raises:
        IDCError: for a file that is of another kind.
    """
    found = []
    for file in files:
        held = read_json(file, "give results of idc evaluate or benchmarks/robustness.py")
        rows = held.get("rows", [held]) if isinstance(held, dict) else []
        if not rows or any({"protocol", "clean", "settings", "images"} - set(row) for row in rows):
            raise IDCError(file, "results of idc evaluate or benchmarks/robustness.py", "give another file")
        found += rows
    order = {"clean": 0, "adaptive": 1, "paper": 2}
    return sorted(found, key=lambda r: (order.get(r["protocol"], 3), r["settings"]["protocol"]["threat"]["eps"]))


def measured(rows: list[dict[str, Any]], model: IDC) -> list[dict[str, Any]]:
    """The card's table: a row for each share, with the precision of the weights that were measured.

    Raises:
        IDCError: for figures of other weights, of another answer, or of another split than test.
    """
    precision, own_answer = precisions(model), (list(model.config.visits), model.config.bridge.eta)
    table: list[dict[str, Any]] = []

    def add(r: dict[str, Any], attack: str, answer: str, accuracy: str, checks: str = "") -> None:
        row = {"attack": attack, "answer": answer, "accuracy": accuracy, "n": r["images"], "checks": checks}
        table.append(row | {"weights": precision[r["settings"]["classifier"]["fingerprint"]]})

    for r in rows:
        held = r["settings"]["classifier"]
        if held["fingerprint"] not in precision:
            raise IDCError(f"figures of {held['name']} ({r['protocol']})", "figures of the run's weights", "leave them")
        if (split := r["settings"]["data"]["split"]) != "test":
            raise IDCError(f"figures of the {split} split ({r['protocol']})", "figures of the test split", "leave them")
        if (asked := (held["config"]["visits"], held["config"]["bridge"]["eta"])) != own_answer:
            given = f"figures of visits, eta = {asked} ({r['protocol']})"
            raise IDCError(given, f"those of the model's own answer, {own_answer}", "leave them")
    whole = next((r for r in rows if r["protocol"] == "clean"), None)
    if whole:
        for answer, own in whole.get("accuracy", {}).items():
            add(whole, "none", answer, share(own))
    elif rows:
        add(rows[0], "none", *_mean(rows[0]["clean"]))
    for r in (r for r in rows if r["protocol"] != "clean"):
        threat = r["settings"]["protocol"]["threat"]
        attack = f"{r['protocol']}, {NORMS[threat['norm']]} {eps_text(threat['eps'])}"
        failed = [f["name"] for f in r["sanity"] if not f["passed"]]
        checks = f"failed: {', '.join(failed)}" if failed else f"{len(made_checks(r))} passed" if r["sanity"] else ""
        add(r, attack, *_mean(r["robust"]), checks)
        if r["robust"]["draws"] > 1:
            worst = f"worst of {r['robust']['draws']} draws"
            add(r, attack, worst, share(r["robust"]["worst_of_n"]), checks)
    return table


def _mean(verdict: dict[str, Any]) -> tuple[str, str]:
    answer = f"mean of {verdict['draws']} draws" if verdict["draws"] > 1 else "one answer"
    return answer, share(verdict["mean"])


def source(run: str, rows: list[dict[str, Any]], name: str | None) -> str:
    """What the card calls the data, which the run names ``run``.

    Raises:
        IDCError: if there is no such name, or figures are of other data.
    """
    named = {r["settings"]["data"]["source"] for r in rows} - {run}
    chosen = name or (named.pop() if len(named) == 1 else run if run == "digits" else None)
    if chosen is None:
        raise IDCError(f"the run's data {run!r}", "a name for it", "give --data-name")
    if other := named - {chosen}:
        raise IDCError(f"figures of {sorted(other)[0]!r}", f"figures of {chosen}", "leave them out")
    return chosen


def about(recipe: dict[str, Any], model: IDC, data: str) -> str:
    """One line on the model."""
    shape = "x".join(map(str, model.input_shape))
    what = f"the {recipe.get('preset', 'custom')} network for {model.num_classes} classes of {shape} images"
    if recipe.get("eps"):
        return f"{what}, trained on {data} against {NORMS[recipe['norm']]} attacks of {eps_text(recipe['eps'])}"
    return f"{what}, trained on {data} without attacks: not robust"


def limits(recipe: dict[str, Any], model: IDC, data: str, table: list[dict[str, Any]]) -> list[str]:
    """What the model is not, as far as files tell."""
    shape = "x".join(map(str, model.input_shape))
    found = [
        f"Every {shape} image gets one of the {model.num_classes} classes as its answer, also one that shows none."
    ]
    if "JPEG-75" in data:
        found += [
            "JPEG-75: the images were re-encoded as JPEG of quality 75; on the original files figures may differ."
        ]
    if recipe.get("eps"):
        norm, eps = NORMS[recipe["norm"]], eps_text(recipe["eps"])
        found += [f"It was trained against {norm} attacks of {eps}: other norms and larger attacks are another matter."]
    else:
        found += ["It was not trained against attacks, and is not robust to them."]
    last = model.one_step_visits[0]
    if (weights := recipe.get("t_weights")) and not any(weights[:last]):
        found += [f"Only timestep {last}, that of the one-step answer, was trained: other visits answer at random."]
    if not any(row["attack"].startswith("adaptive") for row in table):
        found += ["Its robustness has not been measured with the adaptive protocol: none is claimed."]
    if any(row["attack"].startswith("paper") for row in table):
        found += ["The paper's protocol overstates robustness: quote the adaptive one."]
    if failed := sorted({row["attack"] for row in table if row["checks"].startswith("failed")}):
        found += [f"A sanity check failed, so that a stronger attack may find less: {'; '.join(failed)}."]
    if "float32" in {row["weights"] for row in table}:
        found += ["Figures with weights float32 were measured before the weights were rounded to bf16."]
    return [*found, f"One training, one seed ({recipe.get('seed', 0)})."]


def figures(model: IDC) -> dict[str, Any]:
    """The validation of the best weights (the summary of an older run has the last ones'). Of a model that answers in
    one step, what an older run says of the chain is of that step again, and left out."""
    found: dict[str, Any] = model.card.get("figures", {})
    if not model.answers_in_one_step:
        return found
    return {name: value for name, value in found.items() if not name.endswith(("multi_step", "single_draw", "draws"))}


def training(summary: dict[str, Any], card: dict[str, Any]) -> str:
    """The cost of the training."""
    cost = (
        card.get("Training") or f"{summary['seconds']:,.0f} s on {summary['processes']} x {summary['device'].upper()}"
    )
    return (
        f"{cost}, {'bf16' if summary['bf16'] else 'fp32'}, torch {summary['torch']}; "
        f"{summary['images_seen']:,} images, {summary['images_per_second']:,.0f} a second"
    )


def precisions(model: IDC) -> dict[str, str]:
    """The fingerprints of the weights as they are and as they are once rounded."""
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder, dtype="bf16")
        rounded = IDC.from_pretrained(folder)
    return {model_fingerprint(model): "float32", model_fingerprint(rounded): "bf16"}


def add(
    run: Path,
    name: str,
    files: list[Path],
    *,
    data_name: str | None = None,
    visits: tuple[int, ...] | None = None,
    into: Path = HOME,
    shard: int = 0,
) -> Path:
    """Write the package's folder of a model.

    Args:
        visits: the timesteps of the answer that the package's model gives by default, if not those of the run's. The
            weights do not depend on them.
        into: the folder of the model's folder.
        shard: bytes of a file, for a model of any size that is no part of the package; the card then says its path.

    Returns:
        The folder.

    Raises:
        IDCError: if the run is not finished, the figures are of other weights or data, or the model is too large.
    """
    if not re.fullmatch(r"idc(-[a-z0-9]+)+", name):
        raise IDCError(f"name {name!r}", "a name such as idc-nano-cifar10", "correct it")
    if shard < 0 or (shard and into == HOME):
        raise IDCError(f"--shard {shard}", "a number of bytes, for a folder outside the package", "give --into models")
    summary = read_json(run / "summary.json", "give the folder of a finished run of idc train")
    recipe = read_yaml(run / "recipe.yaml", remedy="give the folder of a finished run")
    model = IDC.from_pretrained(run / "best")
    if visits is not None:
        model, recipe = model.with_answer(visits=visits), recipe | {"visits": list(visits)}
    rows = evaluations([*files, *sorted((run / "evaluation").glob("*/summary.json"))])
    data = source(summary["about"]["data"], rows, data_name)
    table = measured(rows, model)
    model.card = {
        "Name": name,
        "About": about(recipe, model, data),
        "Data": data,
        "Training": training(summary, model.card),
        **({"Weights": model.card["Weights"]} if "Weights" in model.card else {}),
        **({FACT: recorded(model.calibration)} if model.calibration else {}),
        "recipe": {k: v for k, v in recipe.items() if k not in ELSEWHERE},
        "figures": figures(model),
        "measured": table,
        "limits": limits(recipe, model, data, table),
    }
    with whole_folder(into / name) as part:
        model.save_pretrained(part, dtype="bf16")
        if shard:
            split(part, shard)
        elif (size := (part / WEIGHTS).stat().st_size) > LARGEST:
            raise IDCError(f"{size:,} bytes of weights", f"{LARGEST:,} at most", "train a smaller network")
        text = (part / CARD).read_text(encoding="utf-8")
        write_text(part / CARD, text.replace("THIS FOLDER OR HUB ID", f"{into.name}/{name}" if shard else name))
    return into / name


def calibrate(folder: Path, source: str, *, limit: int | None = None) -> None:
    """Give a saved model's card the calibration of its answer on validation images that it was not trained on."""
    model = IDC.from_pretrained(folder)
    channels, size, _ = model.input_shape
    images = data.load(source, split="validation", image_size=size, channels=channels, limit=limit)
    objective = BridgeObjective(model, Recipe())
    shown = images.in_order(model.class_names)
    objective.validate(model.unet, shown, final=True, bf16=False, shard=(0, 1))
    change_card(folder, objective.facts())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    adding = commands.add_parser("add", help="put a trained model into the package")
    adding.add_argument("run", type=Path)
    adding.add_argument("name")
    adding.add_argument("--figures", type=Path, nargs="+", default=[])
    adding.add_argument("--data-name", help="what the card calls the data; default: as the figures do")
    adding.add_argument("--visits", help="timesteps of its default answer, such as 3; default: as the run")
    adding.add_argument("--into", type=Path, default=HOME)
    adding.add_argument("--shard", type=int, default=0, metavar="BYTES", help="of a file of weights, at most")
    calibrating = commands.add_parser("calibrate", help="measure a saved model's calibration")
    calibrating.add_argument("folder", type=Path)
    calibrating.add_argument("--data", required=True)
    calibrating.add_argument("--limit", type=int)
    given = parser.parse_args()
    try:
        if "folder" in given:
            calibrate(given.folder, given.data, limit=given.limit)
            print(f"calibrated: {given.folder}")
            return
        visits = rules(Request)["visits"].read("--visits", given.visits) if given.visits else None
        folder = add(given.run, given.name, given.figures, data_name=given.data_name, visits=visits, into=given.into,
                     shard=given.shard)  # fmt: skip
    except IDCError as error:
        print(f"zoo: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
