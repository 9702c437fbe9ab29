"""control_video.json, as it ships: the circle goes where the disc goes, and at strength 0 where it likes."""

from __future__ import annotations

from pathlib import Path

import helios_video as pack
import numpy as np
from helios_video.helios_core.cli import main
from helios_video.helios_core.drawn import Tracked, read_followed
from helios_video.helios_core.drawn.scenes import Thing
from helios_video.helios_core.join import video

FLOW = Path(pack.__file__).parent / "workflows" / "control_video.json"


def run(folder, *changes) -> np.ndarray:
    sets = [part for change in changes for part in ("--set", change)]
    folder.mkdir()
    assert main(["run", str(FLOW), "--input-dir", str(folder), "--output-dir", str(folder), *sets]) == 0
    (made,) = folder.rglob("*.mp4")
    return video.read_frames(made)


def test_the_object_follows_the_film_that_ships(tmp_path):
    turn = 2 * np.pi * np.arange(66) / 66
    path = 32 + np.stack([18 * np.sin(turn), 14 * np.sin(2 * turn)], axis=-1)
    tracked = Tracked(Thing("red", "circle"), "plain", path, 11.5, "still")
    found = read_followed(run(tmp_path / "a"), tracked)
    assert found.near >= 0.9 and found.right
    free = read_followed(run(tmp_path / "b", "HeliosControl.strength=0"), tracked)
    assert free.near < 0.5 and free.colour and free.shape
