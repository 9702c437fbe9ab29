"""HeliosLatentPlot: latents side by side in one picture."""

from __future__ import annotations

import re
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core import pyramid
from helios_video.helios_core.cli import main
from helios_video.nodes.plot import titles
from PIL import Image

NODE = pack.NODE_CLASS_MAPPINGS["HeliosLatentPlot"]


def white(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def draw(**inputs):
    (image,) = NODE().draw(**inputs)
    assert image.dtype == torch.float32 and image.shape[0] == 1 and image.shape[3] == 3
    assert float(image.min()) >= 0 and float(image.max()) == 1
    return image


def test_pyramids_side_by_side():
    x = torch.from_numpy(white(1, 16, 3, 24, 36))
    levels = [pyramid.build(x, (3, 2), policy) for policy in ("noise", "content", "match", "analytic")]
    one, two = draw(latent=levels[0]), draw(latent=levels[0], latent_2=levels[1])
    four = draw(latent=levels[0], latent_2=levels[1], latent_3=levels[2], latent_4=levels[3], names="a, b, c, d")
    assert one.shape[1] == two.shape[1] == four.shape[1] and four.shape[2] > 1.5 * two.shape[2]
    assert not torch.equal(one, draw(latent=levels[1]))
    assert torch.equal(one, draw(latent=levels[0])), "the same latents, another picture"


def test_latents_of_any_size_are_drawn():
    latent = {"samples": torch.from_numpy(white(2, 16, 9, 16, 8))}
    draw(latent=latent, latent_3={"samples": torch.zeros(1, 4, 1, 5, 7)})
    draw(latent={"samples": torch.full((1, 1, 1, 1, 1), 3.0)})
    draw(latent={"samples": torch.full((1, 1, 1, 1, 1), -3.0)}, latent_2={"samples": 1e6 * latent["samples"]})
    draw(latent=pyramid.build(latent["samples"], (8,), "content"), latent_2=latent)
    draw(latent=latent, names="a name that is far too long for a panel of this plot and goes on and on")


def test_what_cannot_be_drawn_is_refused():
    latent = {"samples": torch.zeros(1, 4, 1, 4, 4)}
    with pytest.raises(ValueError, match="latent_2: wanted a video latent"):
        draw(latent=latent, latent_2={"samples": torch.zeros(1, 4, 4, 4)})
    with pytest.raises(ValueError, match="'latent' holds NaN or Inf"):
        draw(latent={"samples": torch.full((1, 4, 1, 4, 4), float("nan"))})
    with pytest.raises(ValueError, match="2 for 1 latents"):
        draw(latent=latent, names="a, b")


def test_names_are_given_or_their_own_and_differ():
    levels = pyramid.build(white(1, 1, 1, 4, 4), (2,), "content")
    assert titles({"latent": {}, "latent_2": levels}, "") == ["latent", "content, area, 2"]
    assert titles({"latent": {}, "latent_2": levels}, "mine") == ["mine", "content, area, 2"]
    assert titles({"latent": levels, "latent_2": levels}, "") == ["1 content, area, 2", "2 content, area, 2"]
    assert titles({"latent": {}, "latent_2": {}}, ", b") == ["1", "b"]


def test_the_workflow_compares_policies(tmp_path, monkeypatch, capsys):
    """pyramid_variance.json as it ships, in fewer steps: two pictures, and the figures of the report."""
    monkeypatch.setenv("HELIOS_CACHE", "off")
    folder = Path(pack.__file__).parent / "workflows"
    arguments = ["run", str(folder / "pyramid_variance.json"), "--output-dir", str(tmp_path)]
    assert main([*arguments, "--set", "DMDPyramidSample.steps=1,1,1"]) == 0
    sizes = [Image.open(tmp_path / "helios" / f"variance_of_{what}_00001_.png").size for what in ("noise", "chunk")]
    assert sizes[0] == sizes[1] and min(sizes[0]) > 700
    shown = capsys.readouterr().out
    found = dict(re.findall(r"Noise report: (\w+): .*\n.*\n10x10: mean \S+ std (\d\.\d+)", shown))
    assert {name: float(std) for name, std in found.items()} == pytest.approx(
        {"noise": 2.53, "content": 0.422, "analytic": 1, "match": 1}, rel=0.03
    )
