"""A score through the nodes: settings of the chunk in work count more than widgets, the same as on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.generate import directed
from helios_video.helios_core.history import DriftPolicy
from helios_video.helios_core.join import video
from helios_video.helios_core.pipeline import ChunkDone
from helios_video.helios_core.text import Direction, Picture, PromptSchedule
from helios_video.helios_core.workflow.run import run
from helios_video.nodes import host
from PIL import Image
from support.nodes import call, make_history

FOLDER = Path(pack.__file__).parent / "workflows"
SCORE = """0: a red circle moving left
1 [seed 5, image cat.png 0.5]:
2 [cut, drift 0]: a blue square moving up
4 [end]:"""


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch):
    """What was sampled before is sampled again, whatever the one who runs the tests keeps."""
    monkeypatch.setenv("HELIOS_CACHE", "off")


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    Image.new("RGB", (80, 64), (0, 200, 0)).save(tmp_path / "cat.png")
    monkeypatch.setattr(host, "input_folder", lambda: tmp_path)
    return tmp_path


def film(helios, text, chunks=3, policy=None, **widgets):
    positive, memory, latents = call("HeliosPromptSchedule", text_encoder=helios.text, text=text)[0], None, []
    memory = make_history(helios)
    given = {"model": helios, "positive": positive, "seed": 1, "steps": "auto", **widgets}
    for _ in range(chunks):
        latent, memory = call("DMDPyramidSample", history=memory, **given)
        latents.append(latent)
        if policy:
            memory = call("AntiDrift", history=memory, policy=policy, seed=1, mean_threshold=0, variance_threshold=0)[0]
    return latents, memory


def test_settings_count_more_than_widgets_from_their_chunk_on(fake_helios):
    film(fake_helios, "0: a; 1 [seed 7, cfg 2]: b; 3 [seed 8]:", 4, cfg=3.0)
    asked = [(call["seed"], call["cfg"], call["history"].chunk) for call in fake_helios.calls]
    assert asked == [(1, 3.0, 0), (7, 2.0, 1), (7, 2.0, 2), (8, 2.0, 3)]


def test_a_cut_forgets_and_counts_on(fake_helios):
    _, memory = film(fake_helios, "0: a; 2 [cut]: b", 3, policy="corrupt")
    seen = fake_helios.calls[2]["history"]
    assert not seen.window.any() and seen.anchor is None and (seen.chunk, seen.began) == (2, 2)
    assert fake_helios.calls[1]["history"].anchor is not None
    assert (memory.history.began, memory.history.chunk) == (2, 3)
    assert torch.equal(memory.history.first_moments, memory.history.moments), "drift is measured from the cut on"


def test_a_picture_is_seen_in_its_chunk_alone(fake_helios, pictures):
    film(fake_helios, "0: a; 1 [image cat.png 0.5]: b; 2: c", 3)
    plain = [call["history"] for call in fake_helios.calls]
    film(fake_helios, "0: a; 1: b; 2: c", 3)
    without = [call["history"] for call in fake_helios.calls[3:]]
    assert not torch.equal(plain[1].window[:, :, -1], without[1].window[:, :, -1])
    assert torch.equal(plain[1].window[:, :, :-1], without[1].window[:, :, :-1])
    assert torch.equal(plain[2].window, without[2].window) and torch.equal(plain[2].anchor, without[2].anchor)


def test_how_far_a_picture_draws(fake_helios, pictures):
    history = make_history(fake_helios).history.append(torch.ones(1, 16, 9, 16, 8))
    picture = lambda name: np.asarray(Image.open(pictures / name))[None]  # noqa: E731
    whole, half = (
        directed(fake_helios, history, Direction(image=Picture("cat.png", s)), seed=1, picture=picture)[1]
        for s in (1.0, 0.5)
    )
    begun = fake_helios.history(64, 128, image=picture("cat.png"), seed=1)
    assert torch.equal(whole.anchor, begun.anchor) and torch.equal(whole.window[:, :, -1:], begun.window[:, :, -1:])
    assert torch.allclose(half.anchor, (history.anchor + whole.anchor) / 2, atol=1e-6) and half.chunk == 1


def test_drift_takes_the_scores_strength(fake_helios):
    one, plain = (film(fake_helios, text, 2, policy="corrupt")[1] for text in ("0 [drift 0]: a", "0: a"))
    assert not torch.equal(one.history.window, plain.history.window) and one.given.drift == 0
    none, strong = film(fake_helios, "0: a", 2)[1], film(fake_helios, "0 [drift 1]: a", 2, policy="corrupt")[1]
    assert torch.equal(one.history.window, none.history.window)
    far = [(m.history.window - none.history.window).abs().mean() for m in (plain, strong)]
    assert float(far[1] / far[0]) == pytest.approx(10, rel=0.01), "strength 1 for the policy's own of 0.1"


def test_the_end_adds_nothing(fake_helios):
    latents, memory = film(fake_helios, "0: a; 2 [end]:", 4, policy="corrupt")
    assert len(fake_helios.calls) == 2 and memory.history.chunk == 2
    assert [latent["samples"].shape[2] for latent in latents] == [9, 9, 0, 0]
    clip = None
    for latent in latents:
        clip, _ = call("ChunkConcat", latent=latent, decoder=fake_vae(fake_helios), fps=24.0, clip=clip)
    assert clip.num_frames == 66
    with pytest.raises(ValueError, match="ends the video before its first chunk"):
        call("ChunkConcat", latent=latents[3], decoder=fake_vae(fake_helios), fps=24.0)


def fake_vae(helios):
    from helios_video.nodes import sockets

    return sockets.VAESocket(helios)


def test_what_cannot_be_is_refused_before_anything_runs(fake_helios, pictures):
    kind = pack.NODE_CLASS_MAPPINGS["HeliosPromptSchedule"]
    assert kind.VALIDATE_INPUTS(text="0: a; 1 [image cat.png 1]:") is True
    assert "no picture 'dog.png'" in kind.VALIDATE_INPUTS(text="0: a; 1 [image dog.png 1]:")
    for name in ("../cat.png", "/etc/passwd", '"..\\cat.png"'):
        assert "without '..' and not absolute" in kind.VALIDATE_INPUTS(text=f"0: a; 1 [image {name} 1]:")
    stamp = kind.IS_CHANGED(text="0: a; 1 [image cat.png 1]:")
    Image.new("RGB", (8, 8)).save(pictures / "cat.png")
    assert kind.IS_CHANGED(text="0: a; 1 [image cat.png 1]:") != stamp and kind.IS_CHANGED() == [0]
    negative = call("HeliosPromptSchedule", text_encoder=fake_helios.text, text="0 [seed 3]: a")[0]
    with pytest.raises(ValueError, match="read from the positive schedule"):
        film(fake_helios, "0: a", 1, negative=negative)


def test_the_pipeline_refuses_what_the_score_needs_and_lacks():
    helios = load()
    for text, says in [
        ("0: a; 1 [drift 0.5]:", "no policy is chosen"),
        ("0: a; 1 [image cat.png 1]:", "nothing reads pictures"),
    ]:
        with pytest.raises(ValueError, match=says):
            helios.generate(PromptSchedule.parse(text))
    with pytest.raises(ValueError, match="ends the video before chunk 2, and 3 chunks are made already"):
        three = helios.history(64, 64)
        for _ in range(3):
            three = three.append(torch.zeros(1, 16, 9, 8, 8))
        helios.generate(PromptSchedule.parse("0: a; 2 [end]:"), history=three)


def test_command_line_workflow_and_loop_give_the_same(pictures, tmp_path):
    """On helios-tiny, a seed, a picture, a cut and an end: the same latents by hand, and the same pixels in files."""
    helios = load()
    picture = lambda name: np.asarray(Image.open(pictures / name))[None]  # noqa: E731
    policy = DriftPolicy("anchor", mean_threshold=0, variance_threshold=0)
    events = helios.generate(PromptSchedule.parse(SCORE), seed=1, chunks=6, drift=policy, picture=picture)
    done = [event.latent for event in events if isinstance(event, ChunkDone)]
    latents, _ = film(helios, SCORE, 6, policy="anchor")
    assert len(done) == 4
    for one, two in zip(done, latents[:4], strict=True):
        assert torch.equal(helios.denormalise(one), two["samples"])
    (tmp_path / "score.txt").write_text(SCORE)
    prompt = json.loads((FOLDER / "api" / "long_video.json").read_text())
    assert (
        main(["generate", "--timeline", str(tmp_path / "score.txt"), "--seed", "1", "-o", str(tmp_path / "a.mp4")]) == 0
    )
    (sampler,) = [n for n in prompt.values() if n["class_type"] == "DMDPyramidSample"]
    sampler["inputs"]["seed"] = 1
    text = prompt[sampler["inputs"]["positive"][0]]
    text["class_type"], text["inputs"]["text"] = "HeliosPromptSchedule", SCORE
    for node in prompt.values():
        node["inputs"] |= {"HeliosLoopStart": {"chunks": 5}, "ChunkConcat": {"boundary": "none"}}.get(
            node["class_type"], {}
        )
        node["inputs"] |= {"AntiDrift": {"policy": "off"}}.get(node["class_type"], {})
    (tmp_path / "loop.json").write_text(json.dumps(prompt))
    result = run(tmp_path / "loop.json", pack.NODE_CLASS_MAPPINGS, output_dir=tmp_path, input_dir=tmp_path)
    one, two = video.read_frames(tmp_path / "a.mp4"), video.read_frames(result.files[0])
    assert one.shape == two.shape == (132, 64, 64, 3) and np.array_equal(one, two)
