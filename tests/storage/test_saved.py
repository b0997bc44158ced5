"""Every kind of saved model comes back bit for bit, or not at all, and takes no memory before its sizes fit."""

from copy import deepcopy
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from edited import edit_config
from idc import IDC, IDCConfig, IDCError
from idc.peers.cnn import CNN, CNNConfig
from idc.peers.diffusion import Diffusion, DiffusionConfig
from idc.storage.files import sha256
from idc.storage.model_folder import CARD, CONFIG, WEIGHTS
from idc.storage.saved import open_saved
from tiny import TINY, tiny_model

MAKERS = {
    "classifier": tiny_model,
    "classifier with BatchNorm": lambda: IDC(replace(tiny_model().config, unet=replace(TINY, norm="batch"))),
    "cnn": lambda: CNN(CNNConfig("preact-resnet18", 3, (1, 8, 8), width=2, class_names=("a", "b", "ü"))),
    "wide cnn": lambda: CNN(CNNConfig("wrn-10-2", 3, (1, 8, 8), width=2)),
    "diffusion": lambda: Diffusion(DiffusionConfig((1, 8, 8), 3, channels=(8, 8), groups=4, timesteps=20)),
}
FIRST = {"classifier": IDC, "cnn": CNN, "diffusion": Diffusion}


@pytest.fixture(params=MAKERS)
def kind(request):
    """A model of each kind, whose statistics of BatchNorm are those of some images."""
    torch.manual_seed(0)
    made = MAKERS[request.param]().train()
    answer(made)
    made.card = {"Data": "made up", "figures": {"validation one_step": 0.5}}
    return made.eval()


@torch.no_grad()
def answer(model):
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    if isinstance(model, Diffusion):
        return model(x, torch.tensor([0, 3, 5, 7, 19]), torch.tensor([0, 1, 2, 3, 0]))
    return (model.one_step if isinstance(model, IDC) else model)(x)


def test_round_trip(kind, tmp_path):
    kind.save_pretrained(tmp_path / "m")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [CARD, CONFIG, WEIGHTS]
    own, loaded = type(kind).from_pretrained(tmp_path / "m"), open_saved(tmp_path / "m", CNN, Diffusion, IDC)
    for again in (own, loaded, deepcopy(kind)):
        assert type(again) is type(kind)
        assert (again.config, again.card, again.training) == (kind.config, kind.card, False)
        assert torch.equal(answer(again), answer(kind))
        assert again.state_dict().keys() == kind.state_dict().keys()
        assert all(torch.equal(value, kind.state_dict()[name]) for name, value in again.state_dict().items())


def test_loading_draws_what_building_draws(kind, tmp_path):
    """From torch's generator, on which a training that goes on depends: the comparison of sizes draws nothing."""
    kind.save_pretrained(tmp_path)
    torch.manual_seed(7)
    type(kind)(kind.config)
    expected = torch.rand(4)
    torch.manual_seed(7)
    type(kind).from_pretrained(tmp_path)
    assert torch.equal(torch.rand(4), expected)


def test_a_card_says_what_the_config_and_the_card_say(kind, tmp_path):
    kind.save_pretrained(tmp_path)
    text = (tmp_path / CARD).read_text()
    assert sum(line.startswith("# ") for line in text.splitlines()) == 1
    assert f"- Parameters: {sum(p.numel() for p in kind.parameters()):,}\n" in text
    assert "- Data: made up\n" in text
    assert "| validation one_step | 0.5 |\n" in text
    assert "bf16" not in text


@pytest.mark.parametrize(("own", "other"), list(permutations(FIRST, 2)))
def test_another_kind_is_named(own, other, tmp_path):
    MAKERS[other]().save_pretrained(tmp_path)
    words = {"classifier": "an IDC", "cnn": "a CNN", "diffusion": "a diffusion model"}
    with pytest.raises(IDCError, match=f"the config of {words[own]}; this folder holds {words[other]}"):
        FIRST[own].from_pretrained(tmp_path)
    rest = [FIRST[key] for key in FIRST if key != other]
    with pytest.raises(IDCError, match=f" or .*; this folder holds {words[other]}"):
        open_saved(tmp_path, *rest)


# -- bf16 --------------------------------------------------------------------------------------------------------------


def nearest_bf16(values):
    """Rounding to the nearest bf16, ties to even, on the bits of finite float32 numbers."""
    bits = values.numpy().view(np.uint32).astype(np.uint64)
    bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return torch.from_numpy((bits & 0xFFFF0000).astype(np.uint32).view(np.float32))


def test_bf16_rounds_every_parameter_and_no_statistic(kind, tmp_path):
    before = {name: tensor.clone() for name, tensor in kind.state_dict().items()}
    kind.save_pretrained(tmp_path / "whole")
    kind.save_pretrained(tmp_path / "half", dtype="bf16")
    again = type(kind).from_pretrained(tmp_path / "half")
    assert again.config == kind.config
    assert again.state_dict().keys() == before.keys()
    for name, tensor in again.state_dict().items():
        kept = "running_" in name or "num_batches" in name
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name] if kept else nearest_bf16(before[name])), name
    assert all(torch.equal(tensor, before[name]) for name, tensor in kind.state_dict().items())  # its own stay
    statistics = [v for name, v in before.items() if "running_var" in name]
    assert not statistics or any(not torch.equal(v, nearest_bf16(v)) for v in statistics)
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in ("whole", "half")]
    assert sizes[0] - sizes[1] == pytest.approx(2 * sum(p.numel() for p in kind.parameters()), abs=1_000)  # the heads
    assert "(stored in bf16)" in (tmp_path / "half" / CARD).read_text()


@pytest.mark.parametrize("rounded", ["matrices only", "everything"])
def test_files_of_other_rules_load(kind, tmp_path, rounded):
    """Of a CNN, biases and norms were once left as they are; a file may also be rounded as a whole."""
    kind.save_pretrained(tmp_path)
    state = {
        k: v.bfloat16() if v.is_floating_point() and (v.ndim > 1 or rounded == "everything") else v
        for k, v in kind.state_dict().items()
    }
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / WEIGHTS)
    edit_config(tmp_path, lambda values: values.update(weights_sha256=sha256(tmp_path / WEIGHTS)))
    for name, value in type(kind).from_pretrained(tmp_path).state_dict().items():
        assert torch.equal(value, state[name].to(value.dtype)), name
        assert value.dtype == kind.state_dict()[name].dtype


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda v: v.masked_fill(torch.arange(v.numel()).view(v.shape) == 1, float("nan")), "NaN or infinite numbers"),
        (lambda v: v.masked_fill(torch.arange(v.numel()).view(v.shape) == 1, float("-inf")), "NaN or infinite numbers"),
        (lambda v: v.bfloat16() / 0, "NaN or infinite numbers"),
        (lambda v: (100 * v).to(torch.int32), "int32 in the file, float32 in the network"),
        (lambda v: v > 0, "bool in the file, float32 in the network"),
        (lambda v: v.to(torch.complex64), "complex64 in the file, float32 in the network"),
    ],
)
def test_numbers_that_are_no_weights_are_refused_though_the_hash_is_right(kind, tmp_path, change, told):
    """One tensor of the file is changed, of the network or, in a network with BatchNorm, of its statistics."""
    kind.save_pretrained(tmp_path)
    names = [name for name, value in kind.state_dict().items() if value.is_floating_point() and value.numel() > 1]
    for name in (names[0], names[-1]):
        state = kind.state_dict() | {name: change(kind.state_dict()[name])}
        save_file({k: v.clone().contiguous() for k, v in state.items()}, tmp_path / WEIGHTS)
        edit_config(tmp_path, lambda values: values.update(weights_sha256=sha256(tmp_path / WEIGHTS)))
        with pytest.raises(IDCError) as caught:
            type(kind).from_pretrained(tmp_path)
        assert f"({name}: {told}" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_count_is_no_float(tmp_path):
    made = MAKERS["wide cnn"]()
    made.save_pretrained(tmp_path)
    name = next(name for name in made.state_dict() if "num_batches" in name)
    state = {k: v.contiguous() for k, v in made.state_dict().items()} | {name: torch.tensor(2.5)}
    save_file(state, tmp_path / WEIGHTS)
    edit_config(tmp_path, lambda values: values.update(weights_sha256=sha256(tmp_path / WEIGHTS)))
    with pytest.raises(IDCError, match=f"{name}: float32 in the file, int64 in the network"):
        CNN.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", ["fp16", "float32", ""])
def test_other_dtypes_write_nothing(tmp_path, kind, dtype):
    with pytest.raises(IDCError, match="one of fp32, bf16"):
        kind.save_pretrained(tmp_path / "m", dtype=dtype)
    assert not (tmp_path / "m").exists()


# -- sizes -------------------------------------------------------------------------------------------------------------

LARGER = {  # what the config of a small network is changed to
    "classifier": [
        {"unet": {"base_channels": 16}},
        {"unet": {"multipliers": [1, 1]}},
        {"unet": {"decoder": False}},
        {"unet": {"base_channels": 8 * 10**12}},
        {"unet": {"res_blocks": 10**9}},
        {"unet": {"position_channels": 10**12}},
    ],
    "cnn": [
        {"width": 4},
        {"arch": "wrn-10-2"},
        {"image_shape": [3, 8, 8]},
        {"width": 10**12},
        {"arch": "wrn-6000000004-1"},
        {"arch": "wrn-10-1000000000000"},
        {"num_classes": 10**12, "class_names": []},
    ],
    "diffusion": [{"channels": [8, 16]}, {"channels": [8, 4 * 10**12]}, {"layers": 10**9}, {"attention": [1]}],
}


@pytest.mark.parametrize(("key", "change"), [(key, change) for key, some in LARGER.items() for change in some])
def test_a_network_that_the_weights_do_not_have_is_never_allocated(tmp_path, monkeypatch, key, change):
    def merge(values):
        for name, value in change.items():
            values[key][name] = values[key][name] | value if isinstance(value, dict) else value

    MAKERS[key]().save_pretrained(tmp_path)
    edit_config(tmp_path, merge)
    plain, build, cls = torch.empty, FIRST[key].build, FIRST[key]

    def empty(*args, **kwargs):
        made = plain(*args, **kwargs)
        assert made.is_meta or made.numel() < 100_000
        return made

    def watched(config):
        assert torch.tensor(0.0).is_meta, "memory is taken"
        return build(config)

    monkeypatch.setattr(cls, "build", staticmethod(watched))
    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(IDCError) as caught:
        cls.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multipliers": [1, 1]}, r"unet\.\S+: \S+ in the file, \S+ in the network"),
        ({"res_blocks": 2}, r"unet\.\S+: nothing in the file, \S+ in the network"),
        ({"decoder": False}, r"unet\.\S+: \S+ in the file, (nothing|\S+) in the network"),
        ({"res_blocks": 10**6}, r"it asks for 2000000 blocks of up to 16 channels, the file has \d+ tensors"),
        ({"base_channels": 8 * 10**9}, r"up to 16000000000 channels, the file has \d+ tensors of \d+ numbers"),
    ],
)
def test_it_is_said_where_the_sizes_differ(tmp_path, change, message):
    IDC(IDCConfig(4, (1, 8, 8), replace(TINY, multipliers=(1, 2)))).save_pretrained(tmp_path)
    edit_config(tmp_path, lambda values: values["classifier"]["unet"].update(change))
    with pytest.raises(IDCError, match=rf"weights that fit config\.json \(.*{message}"):
        IDC.from_pretrained(tmp_path)


# -- the hub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pushed(monkeypatch):
    """What was uploaded: names, sizes and the types of the numbers."""
    from huggingface_hub import HfApi

    seen = {}

    def upload(self, *, folder_path, **_):
        seen["sizes"] = {p.name: p.stat().st_size for p in Path(folder_path).iterdir()}
        with safe_open(Path(folder_path) / WEIGHTS, framework="numpy") as file:
            seen["types"] = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        return "the commit"

    def create(self, repo_id, **_):
        seen["id"] = repo_id
        return type("Repo", (), {"repo_id": repo_id})()

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    return seen


@pytest.mark.parametrize("key", FIRST)
def test_push_to_hub_uploads_the_three_files(key, pushed):
    MAKERS[key]().push_to_hub("someone/some-model")
    assert pushed["id"] == "someone/some-model"
    assert set(pushed["sizes"]) == {CARD, CONFIG, WEIGHTS}
    assert min(pushed["sizes"].values()) > 0
    assert "BF16" not in pushed["types"]


@pytest.mark.parametrize("key", FIRST)
def test_what_is_saved_and_pushed_is_of_one_precision(key, pushed, tmp_path):
    found = MAKERS[key]().save_pretrained(tmp_path / "m", dtype="bf16", push_to_hub=True, repo_id="someone/half")
    assert (found, pushed["id"]) == ("the commit", "someone/half")
    assert pushed["sizes"] == {p.name: p.stat().st_size for p in (tmp_path / "m").iterdir()}
    assert "BF16" in pushed["types"]
