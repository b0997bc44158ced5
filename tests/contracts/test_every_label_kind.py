"""What a classifier relies on in every kind of image labels: the house's own, and a user's function."""

import sys
from typing import get_args

import pytest
import torch

from idc import IDC
from idc.errors import IDCError
from idc.method.config import IDCConfig
from idc.method.labels import LabelKind, fingerprint, orthogonal_labels
from plugin_examples import grey, stripes, too_bright, too_few
from tiny import TINY

KINDS = {kind: kind for kind in get_args(LabelKind)} | {"plugin_examples:stripes": stripes}


def model_of(kind: str) -> IDC:
    config = IDCConfig(4, (1, 8, 8), TINY, label_kind=kind)
    return IDC(config, orthogonal_labels(4, (1, 8, 8), kind=KINDS[kind])).eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", [1, 2])
def test_labels_are_images_that_differ(kind, cell):
    before = torch.get_rng_state()
    found = orthogonal_labels(4, (3, 8, 8), kind=KINDS[kind], cell=cell)
    assert torch.equal(torch.get_rng_state(), before)
    assert (found.shape, found.dtype, found.device.type) == ((4, 3, 8, 8), torch.float32, "cpu")
    assert ((found >= 0) & (found <= 1)).all()
    assert torch.pdist(found.flatten(1), p=1).min() / found[0].numel() > 0.02
    assert torch.equal(found[..., ::cell, ::cell].repeat_interleave(cell, 2).repeat_interleave(cell, 3), found)
    found.zero_()
    assert orthogonal_labels(4, (3, 8, 8), kind=KINDS[kind], cell=cell).any()  # always a fresh copy


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_has_its_labels_again(kind, tmp_path):
    model = model_of(kind)
    model.save_pretrained(tmp_path / "m", dtype="bf16")
    again = IDC.from_pretrained(tmp_path / "m")
    assert again.config == model.config
    assert torch.equal(again.labels, model.labels)
    assert again.labels_sha256 == model.labels_sha256 == fingerprint(model.labels)
    again.with_answer(visits=(3,)).save_pretrained(tmp_path / "copy")
    assert torch.equal(IDC.from_pretrained(tmp_path / "copy").labels, model.labels)


@pytest.mark.parametrize("kind", ["plugin_examples:stripes", "never_written:labels"])
def test_loading_a_model_runs_no_code_of_its_labels(kind, tmp_path, monkeypatch):
    config = IDCConfig(4, (1, 8, 8), TINY, label_kind=kind)
    IDC(config, orthogonal_labels(4, (1, 8, 8), kind=stripes)).save_pretrained(tmp_path)
    monkeypatch.delitem(sys.modules, "plugin_examples", raising=False)
    model = IDC.from_pretrained(tmp_path)
    assert "plugin_examples" not in sys.modules
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert model(images).shape == (3, 4)
    assert model.config.label_kind == kind


def test_labels_of_ones_own_must_be_given():
    with pytest.raises(IDCError, match="labels of kind 'mine:labels'"):
        IDC(IDCConfig(4, (1, 8, 8), TINY, label_kind="mine:labels"))


@pytest.mark.parametrize(
    ("function", "message"),
    [(grey, "two are the same"), (too_bright, r"outside of \[0, 1\]"), (too_few, r"\(3, 1, 8, 8\)"),
     (lambda *given: None, "NoneType"), (lambda k, shape, seed: torch.full((k, *shape), float("nan")), "outside")],
)  # fmt: skip
def test_a_function_that_gives_no_labels_is_refused(function, message):
    with pytest.raises(IDCError, match=message):
        orthogonal_labels(4, (1, 8, 8), kind=function)
