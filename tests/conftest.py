"""Shared fixtures: a stand-in for the core's Helios, and one thread for all tests."""

import os

import pytest

os.environ.setdefault("HELIOS_CACHE", "off")  # what one test finished must not be there for another
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start, too
pytest.register_assert_rewrite("support")


def pytest_collection_finish():
    """Modules are imported before any test: what one of them switched off would be off for all."""
    import torch

    assert torch.is_grad_enabled(), "a module of the tests switches gradients off as it is imported"


@pytest.fixture(autouse=True)
def one_thread():
    """The tests' networks are too small for two, and results do not depend on how many cores there are, nor on what a
    test before gave to --threads."""
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    yield
    assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before, "left in another mode"


@pytest.fixture
def fake_helios():
    from support.fakes import FakeHelios

    return FakeHelios()


@pytest.fixture
def fake_loader(monkeypatch, fake_helios):
    """HeliosLoader gives the stand-in, whatever it is asked for."""
    from helios_video.nodes import loader

    monkeypatch.setattr(loader, "load", lambda path, **_: fake_helios)
    return fake_helios
