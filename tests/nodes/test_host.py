"""ComfyUI's folders."""

from __future__ import annotations

from helios_video.nodes import host


def test_comfyuis_model_folders_are_used_and_none_is_made(comfyui, tmp_path):
    assert host.model_folders() == host.model_folders() == [tmp_path / "models" / "helios"]
    assert host.model_names() == ["helios-tiny"]
    assert not (tmp_path / "models").exists()
