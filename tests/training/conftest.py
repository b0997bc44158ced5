"""A small network, and a whole run of it."""

import pytest

from tiny_training import NETWORK, train


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    file = tmp_path_factory.mktemp("network") / "small.yaml"
    file.write_text(NETWORK)
    return str(file)


@pytest.fixture(scope="session")
def whole(tmp_path_factory, network):
    out = tmp_path_factory.mktemp("whole") / "run"
    result = train(out, network)
    assert (result.step, result.steps) == (16, 16)
    return out
