"""What HeliosLoader gives as MODEL where ComfyUI's engine does not run it, as on MLX."""

from __future__ import annotations

import pytest
from helios_video.helios_core import load
from helios_video.nodes import engine, host


def test_comfyuis_own_nodes_are_told_why_they_cannot_use_it(monkeypatch):
    helios = load("helios-tiny", backend="torch")  # which library computes does not matter to the answer
    assert engine.sockets_of(helios)[0] is helios, "without ComfyUI nobody asks"
    monkeypatch.setattr(host, "present", lambda: True)
    model, _ = engine.sockets_of(helios)
    assert engine.pipeline(model) is model and model.config is helios.config
    assert not hasattr(model, "patcher"), "what scans outputs sees nothing but that there is none"
    for name in ("clone", "model", "get_model_object"):
        with pytest.raises(AttributeError, match="on MLX.*choose the backend torch in HeliosLoader"):
            getattr(model.with_parts(model.parts), name)
