"""Every verb that fills a folder is alone in it, and tidies up there after one that was killed."""

import pytest

from idc import IDCError
from idc.commands.certify import certify
from idc.commands.compare import compare, read_comparison
from idc.commands.evaluate import evaluate
from idc.commands.request import Request
from idc.commands.sweep import run_sweep
from idc.evaluation.smoothing import Smoothing
from idc.storage.files import alone_in
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


@pytest.mark.parametrize("verb", VERBS[2:])
def test_what_a_killed_one_left_half_written_is_removed(verbs, verb, tmp_path):
    out = tmp_path / "r"
    for place in (out, out / "adversarial") if verb == "evaluate" else (out,):
        place.mkdir()
        (place / ".a.json-0123abcd.part").write_text("half")
    verbs[verb](out)
    assert not list(out.rglob(".*"))
