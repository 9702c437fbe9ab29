"""HeliosLatentRobustness on helios-tiny."""

from __future__ import annotations

import helios_video as pack
import torch
from helios_video.helios_core import load
from helios_video.helios_core.drawn import scenes
from helios_video.nodes.sockets import VAESocket


def test_the_node_gives_table_sheet_and_map():
    clip = torch.from_numpy(scenes.draw(scenes.scene("red", "circle", "left", "plain"), 3)).float() / 255
    kind = pack.NODE_CLASS_MAPPINGS["HeliosLatentRobustness"]
    with torch.inference_mode():
        report, plots, heat = kind().probe(VAESocket(load()), clip, frames="separate pictures", probes=2, pieces=2)
    assert heat.shape == (1, 64, 64, 3) and plots.shape[0] == 1 and float(plots.max()) == 1
    assert len(report.splitlines()) == 7 + 16 + 1 and "+-" in report
