"""Files of a saved model: whole, cut into shards, or damaged, which is an error."""

import pytest
import torch
from markdown_it import MarkdownIt

from edited import edit_config, flip_byte
from idc import IDC, IDCError
from idc.storage.model_folder import CARD, CONFIG, WEIGHTS, change_card, shapes, split, write
from tiny import tiny_model


@pytest.fixture
def saved(tmp_path, model):
    model.card = {"Data": "made up", "figures": {"validation one_step": 0.5}}
    model.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def answer(model, images):
    return model.one_step(images)


def test_saving_again_replaces(saved, images):
    other = tiny_model(seed=5)
    other.save_pretrained(saved)
    assert torch.equal(answer(IDC.from_pretrained(saved), images), answer(other, images))


def test_a_file_in_the_way_of_the_folder(tmp_path, model):
    (tmp_path / "m").write_text("mine")
    with pytest.raises(IDCError, match="a folder"):
        model.save_pretrained(tmp_path / "m")
    assert (tmp_path / "m").read_text() == "mine"


def test_a_card_shows_names_as_they_are(tmp_path):
    """Of classes, data and figures, whoever wrote them: no tag, no link, no row more than there are."""
    bad = "<script>alert(1)</script>|`x`|[a](http://b)\n\n# head"
    model = tiny_model(3, class_names=("cat", bad, "dog"))
    model.card = {"Data": bad, "figures": {bad: bad}, "measured": [{"model": bad, bad: 1}], "notes": [bad]}
    model.save_pretrained(tmp_path)
    text = (tmp_path / CARD).read_text().split("---", 2)[2]
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inner = [child.type for token in tokens for child in token.children or ()]
    assert {"html_inline", "link_open"}.isdisjoint(inner)
    assert "html_block" not in [token.type for token in tokens]
    kinds = [token.type for token in tokens]
    assert (kinds.count("heading_open"), kinds.count("tr_open"), kinds.count("table_open")) == (4, 4, 2)
    shown = [token.content for token in tokens if token.type == "inline"]
    assert sum("# head" in content for content in shown) == 7


def test_a_card_shows_facts_tables_rows_and_sentences(tmp_path, model):
    model.card = {
        "Data": "made up",
        "measured": [{"attack": "none", "n": 3}, {"attack": "pgd", "n": 4}],
        "limits": ["A."],
    }
    model.save_pretrained(tmp_path)
    text = (tmp_path / CARD).read_text()
    assert "## Measured\n\n| attack | n |\n| --- | --- |\n| none | 3 |\n| pgd | 4 |\n" in text
    assert "## Limits\n\n- A.\n" in text
    assert "- measured:" not in text


DAMAGE = {
    "flipped byte": (lambda f: flip_byte(f / WEIGHTS, -3), "SHA-256"),
    "truncated weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]), "SHA-256"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "readable weights"),
    "no config": (lambda f: (f / CONFIG).unlink(), CONFIG),
    "truncated config": (lambda f: (f / CONFIG).write_text((f / CONFIG).read_text()[:50]), "whole JSON"),
    "brackets without end": (lambda f: (f / CONFIG).write_text("[" * 100_000), "whole JSON"),
    "edited class order": (
        lambda f: edit_config(f, lambda v: v["classifier"]["class_names"].reverse(), sign=False),
        "edited or damaged",
    ),
    "another model's config": (lambda f: (f / CONFIG).write_text('{"architectures": ["Bert"]}'), "some other model"),
    "newer format": (lambda f: edit_config(f, lambda v: v.update(format=99)), "format 1"),
    "labels of another seed": (
        lambda f: edit_config(f, lambda v: v["classifier"].update(label_seed=1)),
        "image labels",
    ),
    "labels of another kind": (
        lambda f: edit_config(f, lambda v: v["classifier"].update(label_kind="blocks")),
        "image labels",
    ),
    "labels of no kind": (
        lambda f: edit_config(f, lambda v: v["classifier"].update(label_kind="onehot")),
        "onehot",
    ),
    "another network": (
        lambda f: edit_config(f, lambda v: v["classifier"]["unet"].update(multipliers=[1, 1])),
        "weights that fit",
    ),
    "unknown setting": (lambda f: edit_config(f, lambda v: v["classifier"].update(magic=1)), "fit"),
}


def sharded(folder, largest=30_000):
    split(folder, largest)
    return sorted(folder.glob("model-*.safetensors"))


def test_shards_hold_what_one_file_held(saved, model, images):
    from huggingface_hub import load_torch_model

    before = answer(model, images)
    shards = sharded(saved)
    assert len(shards) > 2
    assert not (saved / WEIGHTS).exists()
    assert shapes(*shards) == {name: tuple(value.shape) for name, value in model.state_dict().items()}
    largest = max(v.numel() * 4 for v in model.state_dict().values())
    assert all(s.stat().st_size <= max(30_000, largest + 1_000) for s in shards)
    assert torch.equal(answer(IDC.from_pretrained(saved), images), before)
    fresh = IDC(model.config)
    load_torch_model(fresh, saved)  # the hub's own loader reads the index
    assert torch.equal(answer(fresh.eval(), images), before)


def test_one_tensor_above_the_limit_stays_whole(tmp_path):
    write(tmp_path, {"weight": torch.ones(1000)}, {}, "card")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    split(tmp_path, 1000)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_cut_twice_is_cut_once(saved):
    shards = sharded(saved)
    assert sharded(saved) == shards
    IDC.from_pretrained(saved)


def test_what_is_small_is_not_cut(saved):
    whole = (saved / WEIGHTS).read_bytes()
    assert sharded(saved, largest=10**9) == []
    assert (saved / WEIGHTS).read_bytes() == whole


def test_a_model_saved_over_shards_is_one_file_again(saved, model):
    sharded(saved)
    model.save_pretrained(saved)
    assert sorted(p.name for p in saved.iterdir()) == [CARD, CONFIG, WEIGHTS]
    IDC.from_pretrained(saved)


def rename_shard(values):
    shards = values["weights_sha256"]
    shards["../" + next(iter(shards))] = shards.pop(next(iter(shards)))


def drop_shard(values):
    values["weights_sha256"].popitem()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: flip_byte(sharded(f)[1], -3), "SHA-256"),
        (lambda f: edit_config(f, lambda v: v.pop("weights_sha256")), "SHA-256"),
        (lambda f: sharded(f)[0].unlink(), "readable weights"),
        (lambda f: sharded(f) and edit_config(f, rename_shard), "names of shards"),
        (lambda f: sharded(f) and edit_config(f, drop_shard), "weights that fit"),
    ],
)
def test_damaged_shards_are_an_error(saved, harm, message):
    harm(saved)
    with pytest.raises(IDCError, match=message):
        IDC.from_pretrained(saved)


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_an_error(saved, name):
    harm, message = DAMAGE[name]
    harm(saved)
    with pytest.raises(IDCError, match=message) as caught:
        IDC.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_failed_save_leaves_no_model(tmp_path, model, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(IDCError, match="room on the disk"):
        model.save_pretrained(tmp_path / "m")
    assert list((tmp_path / "m").iterdir()) == []


def test_facts_of_a_card_can_be_changed(saved):
    change_card(saved, {"Data": "found"})
    again = IDC.from_pretrained(saved)  # its hashes still hold
    assert again.card["Data"] == "found"
    assert "- Data: found" in (saved / CARD).read_text()
    assert "made up" not in (saved / CARD).read_text()
