"""What core nodes write on a conditioning or a latent is refused by name where it would be ignored."""

from __future__ import annotations

import helios_video as pack
import pytest
import torch
from helios_video.nodes import marks

NODES = pack.NODE_CLASS_MAPPINGS
TEXT = torch.zeros(1, 4, 8)
HARMLESS = {"pooled_output": None, "start_percent": 0.0, "end_percent": 1.0, "strength": 1.0, "helios_prompt": "a"}
CASES = [
    ({"area": (64, 64, 0, 0), "strength": 1.0}, "an area"),
    ({"strength": 0.5}, "a strength"),
    ({"mask": torch.ones(1, 8, 8), "mask_strength": 1.0}, "a mask"),
    ({"start_percent": 0.5, "end_percent": 1.0}, "a time range"),
    ({"start_percent": 0.0, "end_percent": 0.5}, "a time range"),
    ({"control": object()}, "a ControlNet"),
]


@pytest.mark.parametrize(("more", "what"), CASES)
def test_a_mark_is_named(more, what):
    with pytest.raises(ValueError, match=f"^positive: the CONDITIONING carries {what} .*would ignore"):
        marks.check_conditioning([[TEXT, more]], "positive")


def test_what_says_nothing_passes():
    marks.check_conditioning([[TEXT, HARMLESS]], "positive")
    marks.check_conditioning(None, "negative")
    marks.check_latent({"samples": TEXT}, "latent")
    marks.check_latent(None, "latent")


@pytest.mark.parametrize("given", ["positive", "negative", "latent"])
def test_the_sampler_asks(given, fake_helios):
    history = NODES["HistoryMemory"]().start(fake_helios, 0, 0)[0]
    text = [[torch.zeros(1, 4, fake_helios.config.transformer.text_dim), {}]]
    inputs = {"positive": text, "negative": None, "latent": None}
    marked = {"samples": TEXT, "noise_mask": TEXT} if given == "latent" else [[text[0][0], {"area": (1, 1, 0, 0)}]]
    with pytest.raises(ValueError, match=f"^{given}: the "):
        NODES["DMDPyramidSample"]().sample(
            fake_helios, history=history, seed=0, steps="auto", **inputs | {given: marked}
        )


def test_a_history_from_latents_asks(fake_helios):
    with pytest.raises(ValueError, match="^latent: the LATENT carries a noise mask"):
        NODES["HistoryMemory"]().start(fake_helios, 0, 0, latent={"samples": TEXT, "noise_mask": TEXT})
