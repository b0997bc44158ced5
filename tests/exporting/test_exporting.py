"""The exported file in onnxruntime against PyTorch: same logits from same images and noise, whatever the batch."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from idc import IDC, IDCConfig, IDCError, UNetSpec, __version__
from idc.exporting import answer, export, export_saved, graph

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models" / "digits"
NAMES = ("zero", "eins", "zwölf", "[red]drei")


@pytest.fixture(scope="module", autouse=True)
def exported_once():
    """PyTorch's exporter takes seconds, for a network of some weights and for a chain of some settings."""
    exported, known = graph._exported, {}

    def once(module, inputs, output):
        weights = b"".join(w.numpy().tobytes() for w in module.state_dict().values())
        shapes = [(name, x.shape) for name, (x, _) in inputs.items()]
        chain = (module.model.config, graph._BLOCK) if output == "logits" else ()
        key = weights, repr((shapes, chain))
        if key not in known:
            known[key] = exported(module, inputs, output)
        return graph.copied(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_exported", once)
        yield


@pytest.fixture(scope="module")
def patterns():
    """Four classes of images (N, 3, 8, 8): each is one pattern, of stripes or squares, under noise."""
    random = torch.Generator().manual_seed(4)
    whole = torch.rand(4, 3, 4, 4, generator=random).repeat_interleave(2, 2).repeat_interleave(2, 3)
    classes = torch.arange(200) % 4
    images = whole[classes] + 0.1 * torch.randn(200, 3, 8, 8, generator=random)
    return images.clamp(0, 1), classes


@pytest.fixture(scope="module")
def model(patterns):
    """Every part that a network may have, on two levels; trained until its verdicts are clear."""
    spec = UNetSpec(
        8, (2, 8), groups=4, head_channels=8, patch=2, condition="concat", residual=True, position_channels=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = IDC(IDCConfig(4, (3, 8, 8), spec, temperature=0.2, class_names=NAMES)).train()
    images, classes = (part[:100] for part in patterns)
    optimiser = torch.optim.Adam(model.unet.parameters(), lr=1e-2)
    random = torch.Generator().manual_seed(0)
    for _ in range(30):
        t, eps = torch.randint(4, (100,), generator=random), torch.randn(images.shape, generator=random)
        sample = model.bridge.sample(2 * model.labels[classes] - 1, 2 * images - 1, t, eps)
        loss = (sample.x_t - model.unet(sample.x_t, t, sample.y) - sample.x0).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def draw(model, batch, steps, seed=0):
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, *model.input_shape, generator=random)
    return images, torch.randn(steps, *images.shape, generator=random)


@lru_cache(maxsize=1)
def session(file):
    """Opening a file takes longer than asking it."""
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def run(file, images, noise=None):
    feeds = {"images": images.numpy()} | ({} if noise is None else {"noise": noise.numpy()})
    return torch.from_numpy(session(file).run(["logits"], feeds)[0])


def inputs_of(file):
    return [i.name for i in session(file).get_inputs()]


@torch.no_grad()
def test_one_step_by_the_command_line(model, tmp_path, idc):
    file = tmp_path / "m.onnx"
    model.save_pretrained(tmp_path / "m")
    code, text, said = idc("export", tmp_path / "m", "--out", file, "--one-step", "--json")
    assert (code, said) == (0, "")
    found = json.loads(text)
    assert (found["path"], found["visits"], found["agreement"]) == (str(file), [3], 1)
    assert found["bytes"] == file.stat().st_size
    assert inputs_of(file) == ["images"]
    for batch in (1, 2, 7):
        images, _ = draw(model, batch, 0)
        torch.testing.assert_close(run(file, images), model.one_step(images), atol=2e-5, rtol=0)


@torch.no_grad()
def test_multi_step_takes_the_noise_that_forward_takes(model, tmp_path):
    file, visits = tmp_path / "m.onnx", (3, 1, 1, 0)  # the second 1 has a slice of the noise, and needs none
    found = export(model, file, visits=visits)
    assert found.inputs == {"images": ("B", 3, 8, 8), "noise": (3, "B", 3, 8, 8)}
    for batch in (1, 2, 7):
        images, noise = draw(model, batch, 3)
        expected = model.with_answer(visits=visits)(images, noise=noise)
        torch.testing.assert_close(run(file, images, noise), expected, atol=2e-5, rtol=0)
    moved = []
    for step in range(3):
        other = noise.clone()
        other[step] = -noise[step]
        moved.append((run(file, images, other) - run(file, images, noise)).abs().max().item())
    assert moved[0] > 1e-3
    assert moved[1] == 0
    assert moved[2] > 1e-3


@torch.no_grad()
def test_without_eta_there_is_no_noise_to_give(model, tmp_path):
    found = export(model, tmp_path / "m.onnx", eta=0.0)
    assert (found.visits, found.eta) == ((3, 1, 0), 0)
    assert inputs_of(tmp_path / "m.onnx") == ["images"]
    images, _ = draw(model, 7, 0)
    torch.testing.assert_close(run(tmp_path / "m.onnx", images), model.with_answer(eta=0.0)(images), atol=2e-5, rtol=0)


@torch.no_grad()
def test_labels_in_blocks_and_no_clip(model, tmp_path, monkeypatch):
    other = IDC(replace(model.config, num_classes=7, class_names=(), clip=False)).with_network(model.unet).train()
    monkeypatch.setattr(graph, "_BLOCK", 3 * 3 * 8 * 8)  # seven labels in blocks of three
    export(other, tmp_path / "m.onnx", visits=(3, 0))
    assert other.training
    images, noise = draw(other, 5, 1)
    expected = other.eval().with_answer(visits=(3, 0))(images, noise=noise)
    torch.testing.assert_close(run(tmp_path / "m.onnx", images, noise), expected, atol=2e-5, rtol=0)
    assert sum(node.op_type == "Abs" for node in onnx.load(tmp_path / "m.onnx").graph.node) == 3


@torch.no_grad()
def test_half_of_the_noise_and_metadata_and_nothing_of_this_machine(model, tmp_path):
    export(model, tmp_path / "m.onnx", visits=(3, 1), eta=0.5)
    images, noise = draw(model, 2, 1)
    expected = model.with_answer(visits=(3, 1), eta=0.5)(images, noise=noise)
    torch.testing.assert_close(run(tmp_path / "m.onnx", images, noise), expected, atol=2e-5, rtol=0)
    facts = session(tmp_path / "m.onnx").get_modelmeta().custom_metadata_map
    assert {name: json.loads(text) for name, text in facts.items()} == {
        "class_names": list(NAMES), "image_shape": [3, 8, 8], "visits": [3, 1], "eta": 0.5, "mirrored": False,
        "weights": "fp32",
        "idc_version": __version__,
    }  # fmt: skip
    content = (tmp_path / "m.onnx").read_bytes()
    assert b"site-packages" not in content
    assert str(Path(graph.__file__).parents[3]).encode() not in content


@torch.no_grad()
def test_the_example_of_the_docs_answers_without_torch(model, tmp_path):
    (example,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(encoding="utf-8"), re.DOTALL
    )
    export(model, tmp_path / "nano-chain.onnx")
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    example = example.replace("default_rng()", "default_rng(0)")
    code = f"{example}\nimport sys\nassert 'torch' not in sys.modules and 'idc' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 10, 3, 8, 8), np.float32))
    images = torch.from_numpy(pixels).permute(2, 0, 1).expand(10, -1, -1, -1).float() / 255
    assert result.stdout.strip() == NAMES[model(images, noise=noise).mean(0).argmax()]


# -- weights in fewer bits ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(model, tmp_path_factory):
    """The model with its default answer, in all kinds of weights."""
    folder = tmp_path_factory.mktemp("weights")
    for weights in ("fp32", "fp16", "int8"):
        export(model, folder / f"{weights}.onnx", weights=weights)
    return folder


@pytest.fixture(scope="module")
def answered(model, patterns):
    """Images, noise and PyTorch's logits. 100 at once: from 64 on, the network's upsampling takes another way."""
    images, classes = (part[100:] for part in patterns)  # not those that it was trained on
    _, noise = draw(model, len(images), 2)
    with torch.no_grad():
        logits = model(images, noise=noise)
    assert (logits.argmax(1) == classes).float().mean() > 0.9
    return images, noise, logits


@torch.no_grad()
@pytest.mark.parametrize(("weights", "size", "close"), [("fp32", 1.0, 1e-4), ("fp16", 0.6, 0.02), ("int8", 0.4, 0.5)])
def test_verdicts_of_a_trained_model_survive(answered, stored, weights, size, close):
    images, noise, expected = answered
    found = run(stored / f"{weights}.onnx", images, noise)
    assert (found.argmax(1) == expected.argmax(1)).float().mean() >= (1 if weights == "fp32" else 0.99)
    assert 0 < (found - expected).abs().max() < close
    assert (stored / f"{weights}.onnx").stat().st_size <= size * (stored / "fp32.onnx").stat().st_size


def test_int8_is_within_half_a_step_of_every_weight(model, stored):
    held = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy())
            for t in onnx.load(stored / "int8.onnx").graph.initializer}  # fmt: skip
    weights = {f"unet/{name}": w for name, w in model.unet.state_dict().items()}
    convolutions = [n for n, w in weights.items() if w.ndim == 4 and f"{n}.int8" in held]
    assert len(convolutions) > 20
    for name in convolutions:
        whole, scale = held[f"{name}.int8"], held[f"{name}.scale"]
        assert whole.dtype == torch.int8
        assert (whole.abs().amax((1, 2, 3)) == 127).all()  # the whole range is used
        assert ((whole * scale - weights[name]).abs() <= 0.501 * scale).all()
    assert not [n for n in held if "labels" in n and n.endswith((".int8", ".half"))]


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_a_file_that_answers_otherwise_never_appears(model, tmp_path, monkeypatch, weights):
    def spoil(proto, *_):
        (conv,) = [t for t in proto.graph.initializer if t.name == "unet/net.conv_out.weight"]
        conv.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(conv), conv.name))

    monkeypatch.setattr(answer, "store" if weights == "int8" else "_describe", spoil)
    with pytest.raises(IDCError, match=r"m\.onnx, .* nothing was written"):
        export(model, tmp_path / "m.onnx", one_step=True, weights=weights)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_stays_as_it_is(model, tmp_path):
    file = tmp_path / "m.onnx"
    file.write_text("mine")
    for call in (lambda: export(model, file), lambda: export_saved("no/such/model", file)):
        with pytest.raises(IDCError, match="does not exist yet"):
            call()
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weights": "int4"}, "fp32, fp16, int8"),
        ({"visits": (2, 1)}, "begin with 3 and never rise"),
        ({"eta": 1.5}, r"\[0, 1\]"),
    ],
)
def test_wrong_settings(model, tmp_path, settings, words):
    with pytest.raises(IDCError, match=words):
        export(model, tmp_path / "sub" / "m.onnx", **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mistake", ["packages", "file"])
def test_the_command_line_says_what_to_do(tmp_path, monkeypatch, idc, mistake):
    file = tmp_path / "m.onnx"
    if mistake == "packages":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        file.touch()
    code, _, said = idc("export", DIGITS, "--out", file)
    assert code == 2
    (line,) = said.splitlines()
    expected = {
        "packages": "idc: export without onnxruntime: expected the packages for ONNX; "
        "pip install 'idc-classifier[onnx]'",
        "file": f"idc: {file}: expected a file that does not exist yet; remove it, or choose another name",
    }
    assert line == expected[mistake]
    assert list(tmp_path.iterdir()) == ([file] if mistake == "file" else [])


def test_a_mirrored_answer_is_exported(tmp_path):
    spec = UNetSpec(8, (1, 2), groups=1, norm="batch", middle_attention=False, decoder=False, time_embedding=False)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        plain = IDC(IDCConfig(4, (3, 8, 8), spec, class_names=NAMES)).eval()
    export(plain, tmp_path / "m.onnx", mirrored=True)
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for part in (images, images.flip(-1), images[:1]):
        (logits,) = session.run(["logits"], {"images": part.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(
                torch.from_numpy(logits), plain.with_answer(mirrored=True)(part), rtol=0, atol=1e-3
            )
    assert json.loads({p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}["mirrored"]) is True
