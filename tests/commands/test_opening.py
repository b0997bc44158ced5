"""Which images a request means: the source's own test split, all of a source without splits, or what a training held
out of it."""

import sys

import pytest
import torch

from idc import IDC
from idc.commands.opening import open_both, open_model
from idc.commands.request import Request
from idc.data import load
from idc.errors import IDCError
from idc.storage.model_folder import CARD, SAMPLE
from pictures import plain, values, write_classes
from tiny import tiny_model

CPU = torch.device("cpu")


@pytest.fixture
def photos(tmp_path):
    """40 images without splits, each of its own grey value."""
    write_classes(tmp_path / "photos", ["a", "b"], 20)
    return tmp_path / "photos"


def saved(folder, names=("a", "b"), **card):
    model = tiny_model(2, (1, 4, 4), class_names=names)
    model.card = card
    model.save_pretrained(folder)
    return str(folder)


def judged(model, data, **settings):
    _, images = open_both(Request(model=model, data=str(data), **settings), CPU)
    return images, images.summary


def test_a_folder_without_splits_is_judged_whole(photos, tmp_path):
    images, said = judged(saved(tmp_path / "m"), photos)
    assert sorted(values(images)) == list(range(40))
    assert "all 40 images at 1x4x4" in said


def test_a_split_that_is_asked_for_is_judged(photos, tmp_path):
    """Of a folder without splits too; what a model that does not say what it has seen is judged on is told."""
    model = saved(tmp_path / "m")
    for split in ("train", "validation", "test"):
        images, said = judged(model, photos, split=split)
        assert sorted(values(images)) == sorted(values(load(photos, split=split)))
        assert "trained" not in said
    seen = saved(tmp_path / "seen", **{SAMPLE: load(photos, split="train").sample()})
    images, said = judged(seen, photos, split="all")
    assert sorted(values(images)) == list(range(40))
    assert said.endswith("was trained on images of " + str(photos))
    write_classes(tmp_path / "d" / "train", ["a", "b"], 5)
    with pytest.raises(IDCError, match="train, validation or test; name one"):
        judged(model, tmp_path / "d", split="all")


def test_of_the_images_of_a_training_only_those_held_out_are_judged(photos, tmp_path):
    """Known by their pixels, wherever they lie and whatever lies beside them."""
    held_out = sorted(values(load(photos, split="test")))
    model = saved(tmp_path / "m", **{SAMPLE: load(photos, split="train").sample()})
    images, said = judged(model, photos)
    assert sorted(values(images)) == held_out
    assert "was trained on images of" in said
    moved = photos.rename(tmp_path / "elsewhere")
    assert sorted(values(judged(model, moved)[0])) == held_out
    write_classes(tmp_path / "others", ["a", "b"], 20, start=100)
    assert sorted(values(judged(model, tmp_path / "others")[0])) == list(range(100, 140))


def test_a_module_in_training_mode_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = (
        "import torch\n\n\ndef model():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 10))"
    )
    (tmp_path / "training_net.py").write_text(f"{make}\n\n\ndef ready():\n    return model().eval()\n")
    monkeypatch.delitem(sys.modules, "training_net", raising=False)
    for name, told in (("model", True), ("ready", False)):
        classifier, images = open_both(Request(model=f"training_net:{name}", data="digits", limit=10), CPU)
        assert not classifier.training
        assert ("came in training mode and is judged in evaluation mode" in images.summary) is told


def test_a_module_itself_is_not_shared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = "torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 10))"
    (tmp_path / "own_net.py").write_text(f"import torch\n\nnetwork = {made}\n\n\ndef make():\n    return {made}\n")
    with pytest.raises(IDCError, match=r"own_net:network: expected a function .*Sequential itself.; write def model"):
        open_model("own_net:network")
    assert "--split" not in judged("own_net:make", "digits", limit=10)[1]


def test_of_a_module_of_ones_own_it_is_told_that_all_images_are_judged(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = "torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()"
    (tmp_path / "all_net.py").write_text(f"import torch\n\n\ndef make():\n    return {made}\n")
    images, said = judged("all_net:make", photos)
    assert len(images) == 40
    assert 'split="train") of these, give --split test' in said
    assert said.endswith("the module has no input_shape and is given them at 1x4x4")
    assert "taken: 6 of all at" in judged("all_net:make", photos, limit=6)[1]
    assert len(judged("all_net:make", photos, split="test")[0]) == 8


def test_a_model_of_before_is_known_by_the_name_of_its_data(photos, tmp_path):
    images, said = judged(saved(tmp_path / "m", Data=str(photos)), photos)
    assert len(images) == 8
    assert "was trained on" in said


def test_a_split_of_the_sources_own_is_judged_as_it_is(tmp_path):
    write_classes(tmp_path / "d" / "train", ["a", "b"], 5)
    write_classes(tmp_path / "d" / "test", ["a", "b"], 3, start=50)
    images, said = judged(saved(tmp_path / "m"), tmp_path / "d")
    assert sorted(values(images)) == list(range(50, 56))
    assert "test 6" in said


def test_labels_follow_the_models_own_order_of_classes(photos, tmp_path):
    images, _ = judged(saved(tmp_path / "m", names=("b", "a")), photos)
    assert images.class_names == ("b", "a")
    assert [("b", "a")[k] for k in images.labels] == ["a" if v < 20 else "b" for v in values(images)]
    with pytest.raises(IDCError, match="use data of those classes"):
        judged(saved(tmp_path / "n", names=("a", "c")), photos)


MINE = """
import torch

class Grey(torch.nn.Module):
    def forward(self, x):  # the k-th grey is the k-th number
        return -(x.mean((1, 2, 3))[:, None] * 255 - torch.arange(12) * 2 - 0.5).abs()

def plain():
    return Grey()

def named():
    model = Grey()
    model.class_names = [str(k) for k in range(12)]
    return model

def shaped():
    model = Grey()
    model.input_shape = (1, 6, 6)
    return model
"""


@pytest.fixture
def numbered(tmp_path, monkeypatch):
    """Two images of each of the numbers 0 to 11, in folders of these names; a folder's 10 sorts before its 2."""
    (tmp_path / "greys.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "greys", raising=False)
    write_classes(tmp_path / "n", [str(k) for k in range(12)], 2)
    return tmp_path / "n"


@pytest.mark.parametrize(("name", "right"), [("greys:named", 24), ("greys:plain", 4)])
def test_a_users_module_says_the_order_of_its_classes(numbered, name, right):
    model, images = open_both(Request(model=name, data=str(numbered)), CPU)
    assert (model(images.images / 255).argmax(1) == images.labels).sum() == right


def test_a_users_module_gets_images_of_its_size_or_of_theirs_and_no_other(numbered):
    for name, shape in (("greys:plain", (1, 4, 4)), ("greys:shaped", (1, 6, 6))):
        assert open_both(Request(model=name, data=str(numbered)), CPU)[1].shape == shape
    plain(9, size=5).save(numbered / "3" / "other.png")
    assert open_both(Request(model="greys:shaped", data=str(numbered)), CPU)[1].shape == (1, 6, 6)
    with pytest.raises(IDCError, match="set input_shape"):
        open_both(Request(model="greys:plain", data=str(numbered)), CPU)


def test_the_sample_is_kept_with_the_model_and_not_shown_to_people(photos, tmp_path):
    sample = load(photos, split="train").sample()
    folder = tmp_path / "m"
    assert IDC.from_pretrained(saved(folder, Data="x", **{SAMPLE: sample})).card[SAMPLE] == sample
    text = (folder / CARD).read_text()
    assert "- Data: x" in text
    assert sample[0] not in text
