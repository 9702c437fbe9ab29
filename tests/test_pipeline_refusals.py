"""What the pipeline refuses, before anything is loaded, and that nothing is loaded before it is used."""

import math

import pytest
import torch
from helios_video.helios_core import load
from support.reference import HEIGHT, PROMPT, WIDTH, build

# diffusers gives numpy torch scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled")
    build("distilled", folder)
    return folder


@pytest.fixture(scope="module")
def helios(folder):
    return load(folder)


@pytest.fixture
def fresh(folder):
    """Nothing of it is loaded yet."""
    return load(folder)


def test_steps_are_made_when_they_are_asked_for(fresh, helios):
    """Nothing is loaded for a generator that is not used, and the caller's own grad mode holds between steps."""
    text = helios.text(PROMPT)
    steps = fresh.sample(fresh.history(WIDTH, HEIGHT), text, seed=0)
    assert not fresh.parts.loaded.networks
    assert next(steps).index == 0
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    assert not any(p.is_inference() for p in fresh.parts.transformer.parameters())
    steps.close()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(prompt="  "), "prompt is empty"),
        (dict(width=130), "width 128 or 192, height 64"),
        (dict(height=96), "height 64 or 128"),
        (dict(height=-64), "multiples of 64"),
        (dict(frames=0), "frames 0"),
        (dict(seed=-1), "seed -1"),
        (dict(seed=2**64), "seed 18446744073709551616"),
        (dict(steps=(2, 2)), "3 positive numbers"),
        (dict(steps=()), "3 positive numbers"),
        (dict(steps=(2, 0, 2)), "3 positive numbers"),
        (dict(solver="heun"), "heun"),
        (dict(cfg=-1.0), "cfg -1.0"),
        (dict(cfg=math.nan), "cfg nan"),
        (dict(shift_tokens="never"), "never"),
    ],
)
def test_bad_inputs_are_refused_before_anything_is_loaded(fresh, options, words):
    options = {"prompt": PROMPT, "width": WIDTH, "height": HEIGHT, **options}
    with pytest.raises(ValueError, match=words):
        fresh.generate(options.pop("prompt"), **options)
    assert not fresh.parts.loaded.networks


@pytest.mark.parametrize(
    "change,words",
    [
        (dict(start=torch.zeros(1, 16, 9, 4, 4)), r"must be \[1, 16, 9, 2, 4\], got \[1, 16, 9, 4, 4\]"),
        (dict(positive=torch.zeros(1, 512, 17)), "positive has shape"),
        (dict(positive=torch.zeros(512, 16)), "positive has shape"),
        (dict(positive=torch.zeros(3, 512, 16)), "positive has shape"),
        (dict(negative=torch.zeros(1, 512, 17)), "negative has shape"),
        (dict(seed=-1), "seed"),
        (dict(cfg=-2.0), "cfg"),
        (dict(steps=(1,)), "3 positive"),
    ],
)
def test_bad_arguments_of_sample_are_refused_at_once(fresh, change, words):
    history = fresh.history(WIDTH, HEIGHT)
    with pytest.raises(ValueError, match=words):
        fresh.sample(history, **{"positive": torch.zeros(1, 512, 16), "seed": 0, **change})
    assert not fresh.parts.loaded.networks


def test_a_history_of_another_size_than_asked_for_is_refused(fresh):
    history = fresh.history(WIDTH, HEIGHT)
    with pytest.raises(ValueError, match=f"{WIDTH}x{HEIGHT} pixels, asked for are 64x{HEIGHT}"):
        fresh.generate(PROMPT, history=history, width=64, height=HEIGHT)
    fresh.generate(PROMPT, history=history, width=WIDTH)


def test_bad_history_sizes_are_refused(fresh):
    with pytest.raises(ValueError, match="three positive numbers"):
        fresh.history(WIDTH, HEIGHT, sizes=(16, 0, 1))


def test_components_are_released_and_load_again(fresh):
    before = fresh.text(PROMPT)
    fresh.parts.release("text_encoder")
    assert "text_encoder" not in fresh.parts.loaded.networks
    assert torch.equal(fresh.text(PROMPT).rows, before.rows)
