"""The checkpoint that ships: small enough, in the published layout, and it does what the prompt says."""

import json

import av
import pytest
import torch
from helios_video.helios_core import cli, load, pipeline
from helios_video.helios_core.drawn import scenes
from helios_video.helios_core.drawn.reading import read_video


@pytest.fixture(scope="module")
def helios():
    return load()


def first_chunk(helios, prompt: str, seed: int):
    steps = helios.sample(helios.history(64, 64), helios.text(prompt), seed=seed)
    *_, last = steps
    return helios.decode(last.latent)


def test_all_weights_together_are_at_most_16_megabytes():
    assert sum(p.stat().st_size for p in pipeline.TINY.rglob("*") if p.is_file()) <= 16_000_000


def test_the_folder_records_how_it_is_sampled(helios):
    recorded = json.loads((pipeline.TINY / "generation_config.json").read_text())
    defaults = helios.config.defaults
    assert list(defaults.steps) == recorded["steps"]
    assert (defaults.solver, defaults.cfg) == (recorded["solver"], recorded["cfg"])
    plan = helios.plan(helios.history(64, 64))
    assert (plan.solver, plan.steps, plan.boost) == (defaults.solver, defaults.steps, defaults.boost_first_chunk)


def test_diffusers_opens_the_same_networks():
    """The folder is the published layout: the reference's classes take config and weights, strictly."""
    from diffusers import AutoencoderKLWan, HeliosTransformer3DModel
    from safetensors.torch import load_file

    for part, kind in (("transformer", HeliosTransformer3DModel), ("vae", AutoencoderKLWan)):
        config = json.loads((pipeline.TINY / part / "config.json").read_text())
        weights = load_file(pipeline.TINY / part / "diffusion_pytorch_model.safetensors")
        kind.from_config(config).load_state_dict(weights, strict=True)


@pytest.mark.parametrize(
    ("scene", "seed"),
    [
        (scenes.scene("red", "circle", "left", "plain"), 0),
        (scenes.scene("blue", "square", "down", "striped"), 1),
        (scenes.scene("yellow", "triangle", "right", "plain"), 2),
    ],
)
def test_colour_background_and_motion_follow_the_prompt(helios, scene, seed):
    reading = read_video(first_chunk(helios, scene.caption(), seed))
    found = reading.matches(scene)
    assert found["colour"] and found["background"] and found["motion"]


def test_unconditional_differs_from_the_prompt(helios):
    red, blue = (helios.text(f"a {colour} circle moving left").padded for colour in ("red", "blue"))
    assert not torch.equal(red, blue)
    assert not torch.equal(helios.text("").padded[:, :1], red[:, :1])


def test_one_command_makes_a_video(tmp_path):
    out = tmp_path / "out.mp4"
    code = cli.main(
        ["generate", "--prompt", "a green circle moving up", "--frames", "40", "--steps", "2,2,2", "-o", str(out)]
    )
    assert code == 0
    with av.open(str(out)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 40
