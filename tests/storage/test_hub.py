"""What may be looked up on the hub, and how long a missing network may take."""

import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from idc.errors import IDCError
from idc.storage import hub

IDS = ["uoft-cs/cifar10", "cifar10", "a/b", "A", "_x/y_", "somebody/pictures-v1.5", "n" * 96, f"{'n' * 96}/{'m' * 96}"]
NO_IDS = [
    *(
        "./x",
        "../x",
        "/x",
        "~/x",
        "~somebody",
        "a/b/c",
        "a\\b",
        "x/",
        "/",
        ".",
        "..",
        "",
        " ",
        "two words",
        "a\nb",
        "a\0b",
    ),
    *("a/.b", "a/b.", "a/b-", "-a/b", "a--b", "a/b..c", "a/b.git", "a/b\n", "é/x", "a:b", "a@b"),
    *("n" * 97, f"a/{'n' * 97}"),
]
FILES = ["x.parquet", "somebody/x.png", "model.PTH", "somebody/model.safetensors", "recipe.yaml"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("source", IDS)
def test_ids_are_looked_up(source: str) -> None:
    validate_repo_id(source)
    assert not hub.looks_like_path(source)


@pytest.mark.parametrize("source", NO_IDS, ids=repr)
def test_what_is_no_legal_id_is_a_path(source: str) -> None:
    with pytest.raises(HFValidationError):
        validate_repo_id(source)
    assert hub.looks_like_path(source)


@pytest.mark.parametrize("source", FILES)
def test_a_name_with_a_files_suffix_is_a_path(source: str) -> None:
    assert hub.looks_like_path(source)


def test_what_begins_with_something_that_is_here_is_a_path(tmp_path: Path) -> None:
    assert not hub.looks_like_path("here/nowhere")
    (tmp_path / "here").mkdir()
    assert hub.looks_like_path("here/nowhere")
    (tmp_path / "dangling").symlink_to("nothing")
    assert hub.looks_like_path("dangling")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "no url", "http://[broken"])
def test_no_answer(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert not hub.reachable()


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("status", [200, 401, 503])
def test_any_answer_will_do(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def urlopen(request: urllib.request.Request, timeout: float) -> urllib.error.HTTPError:
        answer = urllib.error.HTTPError(request.full_url, status, "", {}, None)  # type: ignore[arg-type]
        if status != 200:
            raise answer
        return answer

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert hub.reachable()


@pytest.mark.usefixtures("online")
def test_a_silent_network_does_not_hold_up_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    over, ended = threading.Event(), threading.Event()

    def urlopen(*_: object, **__: object) -> None:
        over.wait(60)
        ended.set()
        raise OSError

    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert not hub.reachable()
    assert not ended.is_set()  # the answer came while the network was still silent
    over.set()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_being_offline_by_choice_asks_nobody(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: asked.append(1))
    monkeypatch.setenv(variable, "1")
    assert not hub.reachable()
    assert not asked


def test_a_path_that_is_not_there_is_told_from_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "dogs").mkdir(parents=True)
    for there in ("photos", "photos/dogs", str(tmp_path), "owner/name", "digits", "package.module:make", "photoz"):
        hub.check_path(there)
    for wrong in ("./photoz", "photos/dog", "phots/dogs", "/no/such", "photos.zip", "~/no/such", "a/b/c"):
        with pytest.raises(IDCError, match="no such file or folder"):
            hub.check_path(wrong)
    with pytest.raises(IDCError, match=r"did you mean photos/dogs"):
        hub.check_path("phots/dogs")


def test_the_error_without_a_network_says_what_to_do() -> None:
    error = str(hub.unreachable("somebody/thing", "model"))
    assert error.startswith("hub model 'somebody/thing' (no such folder here; the hub cannot be reached")
    assert "./somebody/thing" in error
