"""From a name to a model's folder: which is taken first, what is fetched, and what is never looked up."""

import shutil
import socket
import urllib.request

import pytest
import torch
from diffusers import UNet2DModel

from idc import IDC, IDCError
from idc.peers.cnn import CNN
from idc.peers.diffusion import Diffusion
from idc.storage import hub
from idc.storage.locate import HOME, locate, packaged_names, resembles_packaged
from idc.storage.model_folder import CONFIG, WEIGHTS, split
from tiny import tiny_model


@pytest.fixture
def saved(tmp_path, model):
    model.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty working folder, and a hub that nobody may ask for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("idc.storage.hub.reachable", lambda: pytest.fail("asked the network"))


def test_a_run_folder_stands_for_its_best_model(saved, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(saved, run / "best")
    assert IDC.from_pretrained(run).num_classes == 4


def test_of_a_run_without_a_best_model_its_last_one_is_named(saved, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.move(saved, run / "last")
    with pytest.raises(IDCError, match=r"--resume.*run/last"):
        IDC.from_pretrained(run)
    assert IDC.from_pretrained(run / "last").num_classes == 4


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["./missing", "no/such/folder", "missing.pt", "/nowhere/model", "~/nothing-here"])
def test_what_looks_like_a_path_is_never_looked_up(name):
    with pytest.raises(IDCError, match="model folder"):
        IDC.from_pretrained(name)


# -- models that come with the package ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("offline")
def test_a_folder_of_that_name_comes_first(tmp_path):
    assert locate("idc-nano-cifar10") == HOME / "idc-nano-cifar10"
    tiny_model().save_pretrained(tmp_path / "idc-nano-cifar10")
    assert IDC.from_pretrained("idc-nano-cifar10").num_classes == 4
    assert IDC.from_pretrained(HOME / "idc-nano-cifar10").num_classes == 10


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["idc-nano", "idc-nano-cifar100", "IDC-Nano-CIFAR10", "nano-cifar10", "idc-something"])
def test_a_name_that_is_nearly_one_is_told_all(name):
    with pytest.raises(IDCError) as caught:
        IDC.from_pretrained(name)
    assert all(known in caught.value.remedy for known in packaged_names())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["someone/idc-nano-cifar10", "resnet18", "x"])
def test_other_names_may_be_on_the_hub(name):
    assert not resembles_packaged(name)


# -- the hub -----------------------------------------------------------------------------------------------------------


def test_without_a_network_a_hub_id_costs_one_probe(monkeypatch):
    """Of limited time, and nothing else is asked: no download is tried again and again."""
    probes = []

    def unanswered(request, timeout):
        probes.append((request.full_url, timeout))
        raise OSError("no network")

    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "urlopen", unanswered)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, lambda *_: pytest.fail("a socket was opened"))
    with pytest.raises(IDCError, match="hub model 'someone/some-model'"):
        IDC.from_pretrained("someone/some-model")
    assert probes == [("http://127.0.0.1:9", hub.PROBE_SECONDS)]
    assert hub.PROBE_SECONDS < 5


@pytest.fixture
def hub_repository(tmp_path, monkeypatch):
    """A folder that stands for a repository on the hub, and what is fetched of it."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    remote, here, fetched = tmp_path / "remote", tmp_path / "here", []
    here.mkdir()

    def download(repo_id, *, allow_patterns, revision=None, **_):
        assert revision in ({here.name} if fetched else {None})  # the weights are of the config's commit
        names = list(filter_repo_objects([p.name for p in remote.iterdir()], allow_patterns=allow_patterns))
        for name in names:
            shutil.copy(remote / name, here / name)
        fetched.extend(names)
        return str(here)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr("idc.storage.hub.reachable", lambda: True)
    return remote, fetched


@pytest.mark.parametrize("kind", [IDC, CNN, Diffusion])
def test_the_hubs_own_keywords_reach_it(kind, tmp_path, monkeypatch):
    """All that it has for fetching a model; the hub is not even asked whether it is there if it may not be."""
    import huggingface_hub

    asked = []

    def download(repo_id, **options):
        asked.append({"source": repo_id} | options)
        raise OSError("not found")

    given = {
        "cache_dir": tmp_path,
        "token": "secret",
        "force_download": True,
        "revision": "v1",
        "local_files_only": True,
    }
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(UNet2DModel, "from_pretrained", lambda source, use_safetensors, **o: download(source, **o))
    monkeypatch.setattr("idc.storage.hub.reachable", lambda: pytest.fail("asked the network"))
    with pytest.raises(IDCError) as caught:
        kind.from_pretrained("someone/some-model", **given)
    assert {k: asked[0][k] for k in given} == given
    assert asked[0]["source"] == "someone/some-model"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", [IDC, CNN, Diffusion])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"strict": False}, "strict= for a model: expected one of device, revision, cache_dir, token"),
        ({"tokn": "secret"}, "tokn= for a model: expected one of device"),
        ({"revision": 3}, "revision= of type int: expected str"),
        ({"cache_dir": ["x"]}, "cache_dir= of type list: expected str or Path"),
        ({"local_files_only": "yes"}, "local_files_only= of type str: expected bool"),
        ({"map_location": "gpu"}, "device 'gpu': expected one that is here"),
        ({"map_location": {"cuda:0": "cpu"}}, "device {'cuda:0': 'cpu'}: expected one that is here"),
        ({"device": "cuda:99"}, "device 'cuda:99': expected one that is here"),
    ],
)
def test_other_keywords_are_one_line(kind, given, told):
    with pytest.raises(IDCError) as caught:
        kind.from_pretrained("someone/some-model", **given)
    assert str(caught.value).startswith(told)


def test_a_local_model_takes_the_words_of_the_hub(saved, model):
    again = IDC.from_pretrained(saved, map_location="cpu", token=None, local_files_only=True, revision="main")
    assert torch.equal(again.unet.net.conv_out.weight, model.unet.net.conv_out.weight)
    assert IDC.from_pretrained(saved, map_location=torch.device("meta")).labels.is_meta


@pytest.mark.parametrize("cut", [False, True])
def test_of_a_hub_id_what_the_config_names_is_fetched(saved, model, images, hub_repository, cut):
    remote, fetched = hub_repository
    before = model.one_step(images)
    weights = [WEIGHTS]
    if cut:
        split(saved, 30_000)
        weights = sorted(p.name for p in saved.glob("model-*.safetensors"))
    shutil.copytree(saved, remote)
    (remote / "model-00001-of-00099.safetensors").write_bytes(b"of another model")
    again = IDC.from_pretrained("someone/some-model")
    assert torch.equal(again.one_step(images), before)
    assert set(fetched) == {CONFIG, *weights}


@pytest.mark.parametrize("config", ['{"architectures": ["ResNet"]}', "[1]", "no JSON", None])
def test_of_a_hub_id_that_is_no_model_of_ours_no_weights_are_fetched(hub_repository, config):
    remote, fetched = hub_repository
    remote.mkdir()
    for name in (WEIGHTS, "model-00001-of-00002.safetensors"):
        (remote / name).write_bytes(b"large")
    if config is not None:
        (remote / CONFIG).write_text(config)
    with pytest.raises(IDCError):
        IDC.from_pretrained("someone/some-model")
    assert fetched == ([] if config is None else [CONFIG])
