"""Crops of images and videos below a folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core.join import video
from helios_video.helios_core.training.crops import Crops, read_pixels
from PIL import Image


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


def test_pictures_are_trained_on_as_they_are_shown(tmp_path):
    """Turned as their EXIF says, grey of 16 bits and floats as they look, of an animation the first or all."""
    exif = Image.Exif()
    exif[0x0112] = 6
    halves = np.zeros((20, 30, 3), np.uint8)
    halves[:, 15:] = 255
    Image.fromarray(halves).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    ramp = np.linspace(0, 1, 30)[None].repeat(20, 0)
    Image.fromarray((ramp * 65535).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "float.tif")
    drawn = [Image.fromarray(halves // n) for n in (1, 2, 3)]
    drawn[0].save(tmp_path / "moving.gif", save_all=True, append_images=drawn[1:], duration=40)
    turned = read_pixels(tmp_path / "turned.jpg")
    assert turned.shape == (1, 30, 20, 3) and turned[0, :10].max() < 30 and turned[0, 20:].min() > 220
    for name in ("deep.png", "float.tif"):
        assert np.abs(read_pixels(tmp_path / name)[0, 0, :, 0] - 255 * ramp[0]).max() <= 1
    assert read_pixels(tmp_path / "moving.gif").shape == (1, 20, 30, 3)
    assert Crops.below(tmp_path, size=8, frames=3).draw(np.random.default_rng(0)).shape == (3, 8, 8, 3)


@pytest.mark.parametrize(("name", "said"), [("nothing", "not a folder"), ("empty", "holds no images or videos")])
def test_a_folder_without_pictures_is_named(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=said):
        Crops.below(tmp_path / name, size=16)


def test_nothing_but_broken_files_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none of the 1 files can be read"):
        Crops.below(tmp_path, size=16).draw(np.random.default_rng(0))
