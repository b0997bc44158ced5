"""YAML files of settings: a mapping comes back, anything else is one clear line."""

import pytest

from idc import IDCError
from idc.storage.yaml_file import read_yaml

NO_VALUES = (b"2024-99-01", b"0b_", b"!!int foo", b"!!float x", b"!!bool x", b"!!timestamp x", b"!!map x", b"[" * 3000)


def test_a_mapping_comes_back(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: 0.5\nvisits: [3, 0]\nnested: {eps: 8/255, é: null}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"lr": 0.5, "visits": [3, 0], "nested": {"eps": "8/255", "é": None}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a mapping of settings"),
        (b"- lr\n", "a mapping of settings"),
        (b"a: [", "a.yaml: .*: expected YAML; correct"),
        (b"a: \xff", "a.yaml, byte 3: expected YAML in UTF-8; save it as UTF-8"),
        (b"lr: 1\nlr: 2\n", r"lr twice in .*a.yaml, line 2"),
        (b"b:\n  lr: 1\n  lr: 2\n", r"lr twice in .*a.yaml, line 3"),
        (b"a: 1\n2: b\n", r"a key 2 in .*a.yaml, line 2: expected a name"),
        (b"? [a, b]\n: 1\n", r"a key that is a list or mapping in .*a.yaml, line 1: expected a name"),
        (b"a: !!python/object/apply:os.getcwd []\n", "a.yaml: .*: expected YAML"),
        *((b"a: " + value, "a.yaml: .*: expected YAML") for value in NO_VALUES),
    ],
)
def test_anything_else_is_refused(tmp_path, content, words):
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(IDCError, match=words) as refused:
        read_yaml(tmp_path / "a.yaml")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(IDCError, match="a readable YAML file of a network's fields; check the path"):
        read_yaml(tmp_path / "b.yaml", holds="a network's fields")
    with pytest.raises(IDCError, match="a readable YAML file"):
        read_yaml(tmp_path)


def test_a_mapping_can_take_another_in(tmp_path):
    (tmp_path / "a.yaml").write_text("base: &base {lr: 1, eps: 2}\nown: {<<: *base, eps: 3}\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml")["own"] == {"lr": 1, "eps": 3}
