"""Every verb that fills a folder is alone in it, tidies up after one that was killed, and notices what was changed."""

import json
import shutil

import pytest

from idc import IDCError
from idc.commands.certify import certify
from idc.commands.compare import compare, read_comparison
from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.commands.sweep import run_sweep
from idc.evaluation.smoothing import Smoothing
from idc.report.results_page import write_report
from idc.storage.files import alone_in
from idc.storage.kinds import (
    CERTIFICATION,
    COMPARISON,
    EVALUATION,
    MODEL,
    SWEEP,
    TRAINING,
    check_kind,
    kind_of,
)
from idc.storage.records import finished
from idc.training.recipe import Recipe
from idc.training.run_folder import claim
from tiny import save_digits_model
from tiny_training import NETWORK, train

VERBS = ("train", "resume", "evaluate", "certify", "sweep", "compare")


def quiet(_):
    return None


@pytest.fixture(scope="module")
def verbs(tmp_path_factory):
    """Each verb as a function of its folder."""
    home = tmp_path_factory.mktemp("verbs")
    (home / "network.yaml").write_text(NETWORK)
    model = str(save_digits_model(home / "m"))
    (home / "c.yaml").write_text(f"data: digits\nprotocols: [clean]\neps: 0.1\nlimit: 4\nmodels: {{A: '{model}'}}\n")
    request = Request(model=model, data="digits", limit=4, draws=2)
    return {
        "train": lambda out: train(out, str(home / "network.yaml"), say=quiet),
        "resume": lambda out: train(out, str(home / "network.yaml"), resume=True, say=quiet),
        "evaluate": lambda out: evaluate(request, out, say=quiet),
        "certify": lambda out: certify(request, Smoothing(sigma=0.25, n0=2, n=10), out, say=quiet),
        "sweep": lambda out: run_sweep(request, "draws=1,2", out, say=quiet),
        "compare": lambda out: compare(read_comparison(home / "c.yaml"), out, say=quiet),
    }


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_written_while_another_process_is_at_work(verbs, verb, tmp_path):
    """Neither settings nor request: of two that are begun together, the second says no word in the first one's."""
    with alone_in(tmp_path / "r"):
        with pytest.raises(IDCError, match="no other process at work"):
            verbs[verb](tmp_path / "r")
        assert [file.name for file in (tmp_path / "r").iterdir()] == [".lock"]


@pytest.fixture(scope="module")
def filled(verbs, tmp_path_factory):
    """The folder of each verb but ``train``, in which a killed one had left files half-written."""
    found = {}
    for verb in VERBS[2:]:
        found[verb] = out = tmp_path_factory.mktemp(verb) / "r"
        for place in (out, out / "adversarial") if verb == "evaluate" else (out,):
            place.mkdir()
            (place / ".a.json-0123abcd.part").write_text("half")
        verbs[verb](out)
    return found


@pytest.fixture(scope="module")
def homes(filled, tmp_path_factory):
    """A folder of each kind, by the verb that fills it."""
    home = tmp_path_factory.mktemp("homes")
    claim(home / "train", Recipe(), {}, resume=False)
    return filled | {"train": home / "train", "import-reference": save_digits_model(home / "model")}


def test_the_kind_of_a_folder_is_seen_by_what_its_verb_writes(homes, tmp_path):
    kinds = {"train": TRAINING, "evaluate": EVALUATION, "certify": CERTIFICATION, "sweep": SWEEP,
             "compare": COMPARISON, "import-reference": MODEL}  # fmt: skip
    assert {verb: kind_of(home) for verb, home in homes.items()} == kinds
    assert (kind_of(tmp_path), kind_of(tmp_path / "new")) == ("", "")


@pytest.mark.parametrize(
    ("verb", "other"),
    [("train", "evaluate"), ("resume", "import-reference"), ("evaluate", "train"), ("certify", "sweep"),
     ("sweep", "compare"), ("compare", "certify")],
)  # fmt: skip
def test_the_folder_of_another_kind_is_refused_and_left_as_it_is(verbs, homes, verb, other):
    """Neither a result nor a run nor a model is ever written over by another command."""
    before = {file: file.read_bytes() for file in homes[other].rglob("*") if file.is_file()}
    with pytest.raises(IDCError, match=r"the folder of an? .*: expected a new one, or that of an? .*another --out"):
        verbs[verb](homes[other])
    assert {file: file.read_bytes() for file in homes[other].rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("verb", ["evaluate", "certify"])
def test_a_result_whose_settings_alone_were_written_goes_on_and_is_no_run(verbs, filled, verb, tmp_path):
    (tmp_path / "r").mkdir()
    shutil.copy(filled[verb] / "settings.json", tmp_path / "r")
    with pytest.raises(IDCError, match="the folder of an evaluation or a certification"):
        check_kind(tmp_path / "r", TRAINING)
    assert verbs[verb](tmp_path / "r")


@pytest.mark.parametrize("verb", VERBS[2:])
def test_what_a_killed_one_left_half_written_is_removed(filled, verb):
    assert not list(filled[verb].rglob(".*"))


@pytest.mark.parametrize("verb", VERBS[2:])
def test_a_record_that_lacks_a_key_is_refused_or_made_again(verbs, filled, verb, tmp_path):
    records = [f for f in filled[verb].rglob("*.json") if "record_sha256" in (json.loads(f.read_text()) or ())]
    assert records
    for number, file in enumerate(records):
        out = tmp_path / str(number)
        shutil.copytree(filled[verb], out)
        damaged = out / file.relative_to(filled[verb])
        held = json.loads(file.read_text())
        del held[next(iter(held))]
        damaged.write_text(json.dumps(held))
        with pytest.raises(IDCError, match=file.name):
            write_report([out], tmp_path / "page.html")
        try:
            verbs[verb](out)
        except IDCError as error:
            told = str(error)
        else:
            told = damaged.name if damaged.read_text() == file.read_text() else ""
        assert damaged.name in told


@pytest.mark.parametrize("verb", VERBS[2:])
def test_an_image_of_which_the_line_was_changed_is_judged_again(verbs, filled, verb, tmp_path):
    out = tmp_path / "r"
    shutil.copytree(filled[verb], out)
    file = next(f for f in sorted(out.rglob("*-0.jsonl")) if not f.name.startswith("costs"))
    before = finished(file.parent, file.name[:-8])
    file.write_text(file.read_text().replace('"class"', '"clasr"', 1))
    assert len(finished(file.parent, file.name[:-8])) < len(before)
    verbs[verb](out)
    again = finished(file.parent, file.name[:-8])
    assert [line | {"seconds": 0} for line in again.values()] == [line | {"seconds": 0} for line in before.values()]
