"""Tensors come back as they were, or not at all."""

import pytest
import torch
from safetensors.torch import save_file

from edited import flip_byte
from idc.storage.tensor_file import load_tensors, save_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "half": torch.ones(3, dtype=torch.bfloat16), "one": torch.tensor(7)}


def test_tensors_come_back_as_they_were(tmp_path):
    save_tensors(tmp_path / "t", TENSORS | {"turned": TENSORS["a"].T}, {"values": "ü"})
    held, about = load_tensors(tmp_path / "t")
    assert about == {"values": "ü"}
    assert held.keys() == {*TENSORS, "turned"}
    for name, tensor in TENSORS.items():
        assert held[name].dtype == tensor.dtype
        assert torch.equal(held[name], tensor)
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


def test_whatever_bit_is_flipped_it_is_noticed(tmp_path):
    file = tmp_path / "t"
    save_tensors(file, TENSORS, {"values": "abc"})
    noticed = 0
    for place in range(file.stat().st_size):
        flip_byte(file, place)
        try:
            held, about = load_tensors(file)
        except ValueError:
            noticed += 1
        else:  # of the name of the checksum, say
            assert about["values"] == "abc"
            assert all(torch.equal(held[name], tensor) for name, tensor in TENSORS.items())
        flip_byte(file, place)
    assert noticed > 200


def test_a_file_of_before_there_were_checksums_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "t")
    held, about = load_tensors(tmp_path / "t")
    assert about == {}
    assert torch.equal(held["a"], TENSORS["a"])
    with pytest.raises(ValueError, match="No such file"):
        load_tensors(tmp_path / "none")
