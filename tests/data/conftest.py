"""Every test of loading has a cache of its own."""

import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDC_CACHE", str(tmp_path_factory.mktemp("cache")))
