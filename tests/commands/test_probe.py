"""`helios probe-vae`: its report, and what it cannot read."""

from __future__ import annotations

import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands.probe import read_clip
from helios_video.helios_core.join.video import write_video
from PIL import Image
from support.codec import video


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    Image.fromarray(video(1, 24)[0]).save(folder / "a.png")
    write_video(folder / "b.mp4", video(5, 16))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_the_command_writes_its_report(pictures, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["probe-vae", str(pictures), "-o", str(output), "--probes", "2", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown == (output / "probe.txt").read_text() + f"{output}\n" and shown.startswith(
        "helios-tiny: the first 1 dB"
    )
    assert (output / "probe.csv").read_text().startswith("channel,spread,sigma,snr_db,sensitivity,error,balance\n0,")
    assert Image.open(output / "probe.png").width > 900 and Image.open(output / "heat_map.png").size == (24, 24)


def test_the_command_refuses_what_it_cannot_read(pictures, tmp_path, capsys):
    (pictures / "broken.png").write_bytes(b"\x89PNG nothing")
    for arguments, words in (
        ([tmp_path / "gone.png"], "there is no"),
        ([pictures / "notes.txt"], "is no picture or video"),
        ([pictures / "broken.png"], "is not a picture that can be read"),
        ([pictures / "a.png", "--probes", "1"], "wanted 2 to 200"),
        ([pictures / "a.png", "--model", "nothing"], "no checkpoint named 'nothing'"),
    ):
        assert main(["probe-vae", *map(str, arguments), "-o", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_are_measured_as_they_are_shown(tmp_path):
    """Turned, deep and tiled ones: the one reader's work. What cannot be read is told by its name."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(video(1, 24)[0][:, :16]).save(tmp_path / "a.png", exif=exif)
    assert read_clip(tmp_path / "a.png").shape == (1, 16, 24, 3)
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(ValueError, match="b.jpg is not a picture that can be read"):
        read_clip(tmp_path / "b.jpg")
