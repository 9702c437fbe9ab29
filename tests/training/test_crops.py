"""Crops of images and videos below a folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core.join import video
from helios_video.helios_core.training.crops import Crops


def test_crops_come_from_every_readable_file(photos, capsys):
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (photos / "text.txt").write_text("not looked at")
    crops = Crops.below(photos, size=16)
    batch = crops.batch(np.random.default_rng(0), 40)
    assert batch.shape == (40, 3, 1, 16, 16) and -1 <= batch.min() < batch.max() <= 1
    said = capsys.readouterr().err
    assert said.count("broken.png") == 1 and said.startswith("skipped") and "text.txt" not in said
    assert len({tuple(x.flatten().tolist()) for x in batch}) > 20
    torch.testing.assert_close(crops.batch(np.random.default_rng(0), 40), batch)


def test_videos_are_cropped_in_time_too(tmp_path, capsys):
    frames = np.arange(12, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3) * 20
    video.write_video(tmp_path / "long.mp4", frames)
    video.write_video(tmp_path / "short.mp4", frames[:3])
    crops = Crops.below(tmp_path, size=16, frames=5)
    batch = crops.batch(np.random.default_rng(0), 12)
    assert batch.shape == (12, 3, 5, 16, 16)
    assert "short.mp4: it has 3 frames" in capsys.readouterr().err
    firsts = ((batch[:, 0, 0, 0, 0] + 1) * 127.5 / 20).round()
    assert len(firsts.unique()) > 3 and (batch.mean((1, 3, 4)).diff(dim=1) > 0.1).all()


@pytest.mark.parametrize(("name", "said"), [("nothing", "not a folder"), ("empty", "holds no images or videos")])
def test_a_folder_without_pictures_is_named(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=said):
        Crops.below(tmp_path / name, size=16)


def test_nothing_but_broken_files_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 1 files can be read"):
        Crops.below(tmp_path, size=16).draw(np.random.default_rng(0))
