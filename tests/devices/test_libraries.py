"""Which library computes: what auto chooses, and what is said where one is missing, broken or without a GPU."""

from __future__ import annotations

import pytest
from helios_video.helios_core import load
from helios_video.helios_core.devices import libraries

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
from support.devices import hide  # noqa: E402


@pytest.mark.parametrize("apple,hidden,chosen", [(True, (), "mlx"), (True, ("mlx",), "torch"), (False, (), "torch")])
def test_auto_is_mlx_on_apple_silicon_where_it_is_installed(monkeypatch, apple, hidden, chosen):
    monkeypatch.setattr(libraries, "_apple_silicon", lambda: apple)
    hide(monkeypatch, *hidden)
    assert libraries.choose("auto") == chosen
    assert libraries.choose("torch") == "torch"


@pytest.mark.parametrize(
    "backend,hidden,said",
    [
        ("mlx", ("mlx",), r"mlx is not installed; .*helios-video\[mlx\]', or choose backend torch"),
        ("torch", ("torch",), "torch is not installed; install it as pytorch.org says .*, or choose backend mlx"),
        ("auto", ("torch", "mlx"), r"neither torch nor mlx is installed.*pytorch.org.*helios-video\[mlx\]"),
        ("cuda", (), "backend 'cuda': wanted one of auto, torch, mlx"),
    ],
)
def test_what_is_missing_is_named(monkeypatch, backend, hidden, said):
    hide(monkeypatch, *hidden)
    with pytest.raises(ValueError, match=said):
        load(backend=backend)


@pytest.mark.parametrize("kind,warned", [("cpu", True), ("metal", False), ("cuda", False)])
def test_mlx_without_metal_says_what_to_choose(monkeypatch, caplog, kind, warned):
    """It runs all the same: on Linux it is there for checking."""
    monkeypatch.setattr(libraries.open_backend("mlx"), "kind", lambda device: kind)
    caplog.clear()
    load(backend="mlx").backend  # noqa: B018
    assert ("MLX has no GPU here and computes on the CPU, where backend torch is much faster" in caplog.text) is warned


@pytest.mark.parametrize(
    ("apple", "hidden", "told"), [(True, ("mlx",), True), (True, (), False), (False, ("mlx",), False)]
)
def test_torch_on_a_mac_points_to_mlx(monkeypatch, caplog, apple, hidden, told):
    monkeypatch.setattr(libraries, "_apple_silicon", lambda: apple)
    hide(monkeypatch, *hidden)
    libraries.open_backend("torch")
    assert ("MLX is what is meant for it: install it" in caplog.text) is told


def test_a_broken_mlx_is_told_from_a_missing_file(monkeypatch):
    """On Linux the package mlx alone has no library to load."""

    def broken(name, package):
        raise ImportError("libmlx.so: cannot open shared object file", name="mlx.core")

    monkeypatch.setattr(libraries, "import_module", broken)
    with pytest.raises(ValueError, match=r"mlx does not load \(libmlx.so.*helios-video\[mlx\]"):
        load(backend="mlx")
