"""A request is read back from every record of one, as it was asked."""

import json
import tarfile
from pathlib import Path

import pytest

from idc.commands.request import Request, read_request
from idc.errors import IDCError
from idc.storage.fields import recorded

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def kept(archive: Path) -> dict[str, str]:
    """The requests among a comparison's records."""
    with tarfile.open(archive) as held:
        files = [member for member in held.getmembers() if member.name.endswith("request.json")]
        return {member.name: held.extractfile(member).read().decode() for member in files}


REQUESTS = {name: text for archive in sorted(RESULTS.glob("*.tar.xz")) for name, text in kept(archive).items()}


@pytest.mark.parametrize("name", REQUESTS)
def test_recorded_requests_are_read(name, tmp_path):
    held, file = json.loads(REQUESTS[name]), tmp_path / "request.json"
    file.write_text(REQUESTS[name])
    if "chunk" in held:
        held["batch_size"] = held.pop("chunk")
    if "format" not in held:
        assert held.pop("split") == "test"  # which was not asked for: the default, now null
    held.pop("format", None)
    found = recorded(read_request(file, "evaluate again"))
    unsaid = recorded(Request(model="m", data="d"))  # what is newer than the record has its default
    assert unsaid["block"] == 128
    assert found == unsaid | {k: v for k, v in held.items() if k != "knobs"} | dict(held.get("knobs", ()))


@pytest.mark.parametrize("split", ["test", "all", None])
def test_a_split_that_was_asked_for_is_kept(split, tmp_path):
    """From format 2 on; before it, what was not asked for is "test"."""
    asked = Request(model="m", data="d", split=split)
    held, file = recorded(asked), tmp_path / "request.json"
    file.write_text(json.dumps(held | {"format": 2}))
    assert read_request(file, "evaluate again") == asked
    file.write_text(json.dumps(held))
    assert read_request(file, "evaluate again").split == (None if split == "test" else split)


def test_what_was_asked_of_the_attacks_before_it_was_fields(tmp_path):
    held = recorded(Request(model="m", data="d", visits=(3, 0))) | {"knobs": [["steps", 2], ["surrogate", "answer"]]}
    for name in ("steps", "eot", "restarts", "surrogate", "block"):
        del held[name]
    (tmp_path / "request.json").write_text(json.dumps(held))
    found = read_request(tmp_path / "request.json", "evaluate again")
    assert found == Request(model="m", data="d", visits=(3, 0), steps=2, surrogate="answer")


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"model": "m"}', '{"model": 3, "data": "d"}', '{"model": "m", "data": "d", "knobs": 3}', "{"]
)
def test_what_is_no_request(tmp_path, text):
    (tmp_path / "request.json").write_text(text)
    with pytest.raises(IDCError, match=r"request\.json: .*; evaluate again"):
        read_request(tmp_path / "request.json", "evaluate again")


@pytest.mark.parametrize(
    "wrong",
    [
        {"eps": [0.1, 0.2]},
        {"limit": 0},
        {"norm": "l3"},
        {"split": "final"},
        {"eta": 2},
        {"visits": (3, -1)},
        {"steps": 0},
    ],
)
def test_a_request_names_the_field_that_cannot_be(wrong):
    with pytest.raises(IDCError, match=f"^{next(iter(wrong))} = "):
        Request(model="m", data="d", **wrong)


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.1", 0.1), (0.1, 0.1), (" 1 / 255 ", 1 / 255), ("1e-3", 1e-3)]
)
def test_eps_is_read_as_people_write_it(text, value):
    assert Request(model="m", data="d", eps=text).eps == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "8/", "eight", "1/0", "8/255/2", "--1", "nan", "inf", "-1"])
def test_other_radii_are_refused(text):
    with pytest.raises(IDCError, match="8/255"):
        Request(model="m", data="d", eps=text)
