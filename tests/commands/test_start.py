"""`helios generate` from an image, a video or a saved run, with helios-tiny: files, seeds, sizes, what is refused."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.drawn import scenes
from helios_video.helios_core.drawn.reading import centre, object_mask
from helios_video.helios_core.history import saved
from helios_video.helios_core.join import video
from PIL import Image

SCENE = scenes.scene("green", "square", "right", "plain", starts=((20, 40),))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HELIOS_CACHE", "off")
    return tmp_path


def wide(frames):
    """uint8 [f 64 96 3]: half as wide again as helios-tiny's size."""
    drawn = scenes.draw(SCENE, frames)
    return np.concatenate([drawn[:, :, 48:], drawn, drawn[:, :, :16]], axis=2)


def generate(out, *options, frames=33):
    arguments = ["generate", "--prompt", "a green square moving right", "--steps", "1,1,1", "--weight-dtype", "fp32"]
    return main([*arguments, "--frames", str(frames), "-o", out, *options])


def test_save_and_resume_make_the_uninterrupted_video(here):
    """The history is kept after every chunk; the resumed video is the whole one's second half, to the byte."""
    assert generate("whole.mp4", "--seed", "7", frames=66) == 0
    assert generate("first.mp4", "--seed", "7", "--save-history", "run.safetensors") == 0
    assert saved.read_seed("run.safetensors") == 7
    assert generate("second.mp4", "--resume", "run.safetensors", "--save-history", "run.safetensors") == 0
    whole, first, second = (video.read_frames(f"{name}.mp4") for name in ("whole", "first", "second"))
    assert np.array_equal(whole[:33], first) and np.array_equal(whole[33:], second)
    model = load()
    run = saved.read("run.safetensors", model.config, model.backend.array)
    assert (run.seed, run.history.chunk) == (7, 2)
    assert generate("other.mp4", "--resume", "run.safetensors", "--seed", "0") == 0
    assert saved.read_seed("run.safetensors") == 7


def test_a_picture_of_another_size_begins_the_video(here):
    """An image file, cropped about its centre; what the run remembers as its first frame looks like it."""
    import av

    picture = wide(1)[0]
    av.VideoFrame.from_ndarray(picture, format="rgb24").to_image().save("start.png")
    kept = ("--save-history", "run.safetensors")
    assert generate("out.mp4", "--image", "start.png", "--start-noise", "0,0", *kept) == 0
    assert video.read_frames("out.mp4", count=1)[0].shape == (64, 64, 3)
    model = load(weight_dtype="fp32")
    anchor = saved.read("run.safetensors", model.config, model.backend.array).history.anchor
    made = model.decode(anchor)[0].astype(float)
    centre = picture[:, 16:80].astype(float)
    right, turned = (abs(made - way).mean() for way in (centre, centre[::-1, ::-1]))
    assert right < turned / 2
    assert video.read_metadata("out.mp4")["helios"]["image"] == "start.png"


def test_a_turned_picture_begins_the_video_upright(here):
    """The remembered first frame shows the picture as its EXIF turns it, its object where it was."""
    picture, exif = scenes.draw(SCENE, 1)[0], Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(np.rot90(picture, -1)).save("turned.png", exif=exif)
    Image.fromarray(picture).save("plain.png")
    model, anchors = load(weight_dtype="fp32"), []
    for name in ("turned", "plain"):
        kept = ("--start-noise", "0,0", "--save-history", f"{name}.safetensors")
        assert generate(f"{name}.mp4", "--image", f"{name}.png", *kept) == 0
        anchors.append(saved.read(f"{name}.safetensors", model.config, model.backend.array).history.anchor)
    assert torch.equal(*anchors)
    assert np.abs(where(model.decode(anchors[0])[0]) - (20, 40)).max() < 0.5


def where(frame):
    """(x, y) of the object before a plain background."""
    return centre(object_mask(frame[None] / 255, "plain")[0])


@pytest.mark.parametrize(("motion", "x"), [("right", 16), ("left", 48), ("still", 32)])
def test_an_object_stays_where_the_picture_has_it(here, motion, x):
    """Frame 0 shows the picture's object in its place, where such a motion began in training: what moves right on the
    left. One that begins in the middle jumps a quarter of the width there: helios-tiny has never seen it, and the
    picture that it is given, as remembered, is in the middle."""
    shown = scenes.scene("red", "circle", motion, "plain", starts=((x, 32),))
    model = load(weight_dtype="fp32")
    history = model.history(64, 64, image=scenes.draw(shown, 1), seed=0)
    assert np.abs(where(model.decode(history.anchor)[0]) - (x, 32)).max() < 1
    *_, chunk = model.generate(shown.caption(), chunks=1, seed=0, history=history, width=64, height=64)
    first = next(iter(chunk.frames)) if not isinstance(chunk.frames, np.ndarray) else chunk.frames
    assert np.abs(where(first[0]) - (x, 32)).max() < 6


@pytest.mark.parametrize(("options", "rate"), [((), "30000/1001"), (("--fps", "12"), "12")])
def test_the_rate_follows_the_video_that_goes_on(here, options, rate):
    video.write_video("clip.mp4", scenes.draw(SCENE, 40), fps=Fraction(30000, 1001))
    assert generate("out.mp4", "--video", "clip.mp4", *options) == 0
    assert video.probe("out.mp4").fps == Fraction(rate)
    assert video.read_metadata("out.mp4")["helios"]["fps"] == pytest.approx(float(Fraction(rate)))


def test_a_video_of_another_size_goes_on(here):
    """As with all its frames given to the core, though only its ends are read."""
    video.write_video("clip.mp4", wide(150))
    assert generate("out.mp4", "--video", "clip.mp4", "--save-history", "run.safetensors") == 0
    model = load(weight_dtype="fp32")
    history = model.history(64, 64, video=video.read_frames("clip.mp4"), seed=0)
    text = model.text("a green square moving right")
    *_, step = model.sample(history, text, seed=0, steps=(1, 1, 1))
    kept = saved.read("run.safetensors", model.config, model.backend.array).history
    assert torch.equal(kept.window[:, :, -9:], step.latent) and torch.equal(kept.anchor, history.anchor)


def test_the_ends_of_a_video(here):
    frames = scenes.draw(SCENE, 40)
    video.write_video("clip.mp4", frames)
    whole = video.read_frames("clip.mp4")
    assert np.array_equal(video.read_ends("clip.mp4", 40), whole)
    assert np.array_equal(video.read_ends("clip.mp4", 99), whole)
    assert np.array_equal(video.read_ends("clip.mp4", 5), whole[[0, 35, 36, 37, 38, 39]])


def test_flags_of_the_history(here):
    assert generate("a.mp4", "--no-keep-first-frame", "--save-history", "a.safetensors") == 0
    assert generate("b.mp4", "--skip-first-chunk", "--save-history", "b.safetensors") == 0
    model = load()
    a, b = (saved.read(f"{name}.safetensors", model.config, model.backend.array).history for name in "ab")
    assert not a.keep_first_frame and a.anchor is None and not a.skip_first_chunk
    assert b.keep_first_frame and b.anchor is not None and b.skip_first_chunk


@pytest.mark.parametrize(
    "options,words",
    [
        (["--image", "none.png"], "no file at none.png"),
        (["--video", "none.mp4"], "no file at none.mp4"),
        (["--video", "short.mp4"], "video: wanted at least 33 frames, one chunk; got 20"),
        (["--video", "notes.txt"], "notes.txt is not a video"),
        (["--resume", "none.safetensors"], "no saved run at none.safetensors"),
        (["--resume", "notes.txt"], "no saved run, or a damaged one"),
        (["--resume", "run.safetensors", "--width", "128"], "--width 128: the run in run.safetensors has 64"),
        (["--resume", "run.safetensors", "--skip-first-chunk"], "the run's own settings"),
        (["--save-history", "run.bin"], "ends in .safetensors"),
        (["--save-history", "none/run.safetensors"], "in an existing folder"),
        (["--image", "short.mp4", "--start-noise", "1"], "--start-noise '1': wanted two numbers"),
        (["--image", "short.mp4", "--start-noise", "0.3,0.2"], "noise sigma from 0.3 to 0.2"),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(here, capsys, options, words):
    model = load()
    saved.write("run.safetensors", model.history(64, 64), seed=1, config=model.config)
    video.write_video("short.mp4", scenes.draw(SCENE, 20))
    (here / "notes.txt").write_text("no video, and no saved run, but some words of text")
    before = sorted(here.iterdir())
    assert generate("out.mp4", *options) == 2
    assert words in capsys.readouterr().err.splitlines()[-1] and sorted(here.iterdir()) == before


def test_two_starts_are_refused(capsys):
    with pytest.raises(SystemExit):
        generate("out.mp4", "--image", "a.png", "--video", "b.mp4")
    assert "not allowed with argument" in capsys.readouterr().err
