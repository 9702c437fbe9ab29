"""Prompts over time: the text format, the shares of a blend, and what the pipeline and the nodes make of them.

Named: D12, D13, V2.
"""

from __future__ import annotations

import logging
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.join import video
from helios_video.helios_core.pipeline import ChunkDone
from helios_video.helios_core.text import Embedding
from helios_video.helios_core.text.prompts import Cue, PromptSchedule
from helios_video.helios_core.workflow.run import run
from helios_video.nodes import sockets
from support.nodes import call

EXAMPLE = "0: a red circle; 4 (2): a blue square"


@pytest.fixture(scope="module")
def helios():
    return load()


@pytest.mark.parametrize(
    ("text", "cues"),
    [
        (EXAMPLE, [(0, "a red circle", 1), (4, "a blue square", 2)]),
        ("\n 0 : a\n\n4(2) :b\n", [(0, "a", 1), (4, "b", 2)]),
        ("0: a; b, c\n4: d;", [(0, "a; b, c", 1), (4, "d", 1)]),
        (
            "0: wide, 16:9; 12:30 on a clock; 3: note: this",
            [(0, "wide, 16:9; 12:30 on a clock", 1), (3, "note: this", 1)],
        ),
        (r"0: a\; 4: b; 5: c", [(0, "a; 4: b", 1), (5, "c", 1)]),
        ("0: first line\nsecond line\n10 (3): b", [(0, "first line\nsecond line", 1), (10, "b", 3)]),
    ],
)
def test_the_text_format(text, cues):
    assert PromptSchedule.parse(text).cues == tuple(Cue(*cue) for cue in cues)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not begin with a chunk"),
        ("a red circle", "'a red circle' does not begin with a chunk; wanted '0: a red circle"),
        ("a; 0: b", "does not begin with a chunk"),
        ("0:30 on a clock", "does not begin with a chunk"),
        ("1: a", "the first prompt begins at chunk 1; wanted one from chunk 0"),
        ("0: a; 4: b; 3: c", "chunk 3 comes after chunk 4; wanted chunks in ascending order"),
        ("0: a; 4: b; 4: c", "chunk 4 comes twice"),
        ("0: ; 4: b", "chunk 0: the prompt is empty"),
        ("0: a; 4:", "chunk 4: the prompt is empty"),
        ("0: a; 1 (3): b; 3: c", "chunk 1 blends over 3 chunks, but the next prompt begins at chunk 3; blend over 2"),
        ("0 (2): a", "nothing comes before chunk 0 to blend from"),
        ("0: a; 4 (0): b", "chunk 4 blends over 0 chunks; wanted 1"),
        ("0: a; 4 (two): b", r"chunk 4 \(two\): wanted a whole number"),
        ("0: a; 4 (): b", r"chunk 4 \(\): wanted a whole number"),
        ("0: a; 4 (-1): b", r"chunk 4 \(-1\): wanted a whole number"),
        ("0: a; 1.5: b", "chunk '1.5': wanted a whole number"),
        ("0: a; -1: b", "chunk '-1': wanted a whole number"),
    ],
)
def test_a_bad_schedule_says_what_is_wrong(text, says):
    with pytest.raises(ValueError, match=says):
        PromptSchedule.parse(text)


def test_a_cut_is_a_blend_over_one_chunk():
    cut = PromptSchedule((Cue(0, "a"), Cue(3, "b")))
    assert [cut.shares(k) for k in range(5)] == [(("a", 1.0),)] * 3 + [(("b", 1.0),)] * 2
    with pytest.raises(ValueError, match="counted from 0"):
        cut.shares(-1)


@pytest.mark.parametrize("blend", [2, 3, 4, 7])
def test_d13_a_blend_leaves_the_old_prompt_at_once_and_ends_on_the_new_one(blend):
    """Equal steps; no chunk of the blend is the old prompt, only its last is the new one, and that exactly."""
    schedule = PromptSchedule((Cue(0, "a"), Cue(2, "b", blend), Cue(2 + blend, "c")))
    assert schedule.shares(1) == (("a", 1.0),)
    new = [dict(schedule.shares(2 + i)).get("b", 0.0) for i in range(blend)]
    assert new == pytest.approx([(i + 1) / blend for i in range(blend)])
    assert 0 < new[0] < 1 and schedule.shares(1 + blend) == (("b", 1.0),)
    assert all(sum(share for _, share in schedule.shares(k)) == pytest.approx(1) for k in range(10))
    assert schedule.shares(2 + blend) == (("c", 1.0),)


def test_embeddings_are_mixed_linearly_and_encoded_once_each():
    asked, table = [], {"a": torch.ones(1, 3, 2), "b": torch.arange(8.0).view(1, 4, 2)}
    table = {name: Embedding(rows, 16) for name, rows in table.items()}
    schedule = PromptSchedule.parse("0: a; 1 (4): b; 5: a")
    encoded = schedule.encode(lambda prompt: asked.append(prompt) or table[prompt])
    assert asked == ["a", "b"]
    assert (
        encoded.embedding(0) is table["a"] and encoded.embedding(4) is table["b"] and encoded.embedding(9) is table["a"]
    )
    a, b = (table[name].padded for name in "ab")
    assert torch.allclose(encoded.embedding(1).padded, 0.75 * a + 0.25 * b) and encoded.embedding(1).rows.shape[1] == 4
    assert torch.allclose(encoded.embedding(3).padded, 0.25 * a + 0.75 * b)


def chunks(helios, prompt, count, **options):
    events = helios.generate(prompt, **{"frames": 33 * count, "seed": 3, "steps": (1, 1, 1), **options})
    return [event for event in events if isinstance(event, ChunkDone)]


def test_each_chunk_sees_its_prompt(helios):
    """Chunk k of a scheduled video is what sampling by hand with that chunk's embedding gives."""
    red, blue = "a red circle moving left", "a blue square moving up"
    done = chunks(helios, PromptSchedule.parse(f"0: {red}; 1 (2): {blue}"), 3)
    texts = [helios.text(red).padded, (helios.text(red).padded + helios.text(blue).padded) / 2, helios.text(blue)]
    history = helios.history(64, 64)
    for text, chunk in zip(texts, done, strict=True):
        *_, step = helios.sample(history, text, seed=3, steps=(1, 1, 1))
        assert torch.equal(step.latent, chunk.latent)
        history = history.append(step.latent)


def test_a_schedule_goes_on_where_the_history_stands(helios):
    """Chunks are those of the video, not of the run: a resumed run sees the same prompts."""
    schedule = PromptSchedule.parse("0: a red circle moving left; 1: a blue square moving up")
    whole = chunks(helios, schedule, 2)
    rest = chunks(helios, schedule, 1, history=helios.history(64, 64).append(whole[0].latent))
    assert torch.equal(rest[0].latent, whole[1].latent)


def test_a_plain_prompt_is_never_read_as_a_schedule(helios):
    """ "0:" in a prompt is text, unless a schedule is asked for."""
    plain, scheduled = "0: a red circle moving left", PromptSchedule.parse("0: a red circle moving left")
    assert not torch.equal(chunks(helios, plain, 1)[0].latent, chunks(helios, scheduled, 1)[0].latent)
    same = chunks(helios, "a red circle moving left", 1)[0].latent
    assert torch.equal(same, chunks(helios, scheduled, 1)[0].latent)


def test_d12_a_schedule_does_not_set_the_length(helios, caplog):
    """Frames do; a prompt beyond the end costs a line in the log."""
    with caplog.at_level(logging.WARNING):
        done = chunks(helios, PromptSchedule.parse("0: a red circle; 1: a blue square; 40: a green square"), 2)
    assert [(d.chunk, d.total) for d in done] == [(0, 2), (1, 2)]
    assert "the prompt of chunk 40 is not used: the video ends with chunk 1" in caplog.text
    assert "chunk 1 is not used" not in caplog.text


def test_v2_nothing_of_another_prompt_stays_behind(helios):
    """A prompt written over the old one's memory, between chunks and between runs, is seen as the new one."""
    text, other = helios.text("a red circle moving left").padded.clone(), helios.text("a blue square moving up").padded
    history = helios.history(64, 64)

    def run(embedding):
        *_, step = helios.sample(history, embedding, seed=0, steps=(1, 1, 1))
        return step.latent

    red, fresh = run(text), run(other.clone())
    text.copy_(other)
    assert torch.equal(run(text), fresh) and not torch.equal(red, fresh)
    encoded = helios.text("a red circle moving left")
    encoded.rows.zero_()
    assert helios.text("a red circle moving left").rows.any(), "what is remembered was handed out"


def scheduled(fake_helios, text):
    return call("HeliosPromptSchedule", text_encoder=fake_helios.text, text=text)[0]


def sample(fake_helios, positive, memory, **inputs):
    return call(
        "DMDPyramidSample", model=fake_helios, positive=positive, history=memory, seed=1, steps="auto", **inputs
    )


@pytest.fixture
def memory(fake_helios):
    return sockets.HistorySocket.of(fake_helios.history(64, 128), fake_helios)


def test_the_sampler_node_picks_the_prompt_of_its_chunk(fake_helios, memory):
    positive, negative = scheduled(fake_helios, "0: a b; 1 (2): c d e"), scheduled(fake_helios, "0: x; 2: y")
    for _ in range(3):
        _, memory = sample(fake_helios, positive, memory, negative=negative)
    old, new, x, y = (fake_helios.text(prompt).padded for prompt in ("a b", "c d e", "x", "y"))
    for asked, text, other in zip(fake_helios.calls, (old, (old + new) / 2, new), (x, x, y), strict=True):
        assert torch.allclose(asked["positive"].padded, text) and torch.equal(asked["negative"].padded, other)


def test_nodes_that_know_no_schedule_see_the_first_prompt(fake_helios):
    positive = scheduled(fake_helios, "0: a b; 1: c d e")
    assert len(positive) == 1 and torch.equal(positive[0][0], fake_helios.text("a b").padded)


def test_a_schedule_that_another_node_changed_is_refused(fake_helios, memory):
    ((tensor, more),) = scheduled(fake_helios, "0: a b; 1: c")
    with pytest.raises(ValueError, match="positive: another node changed what HeliosPromptSchedule gave"):
        sample(fake_helios, [[tensor * 0.5, dict(more)]], memory)
    sample(fake_helios, [[tensor, {**more, "pooled_output": None}]], memory)


def test_the_node_refuses_a_bad_schedule_before_anything_runs():
    kind = pack.NODE_CLASS_MAPPINGS["HeliosPromptSchedule"]
    assert kind.VALIDATE_INPUTS(text=EXAMPLE) is True and kind.VALIDATE_INPUTS() is True
    assert "chunk 4 comes twice" in kind.VALIDATE_INPUTS(text="0: a; 4: b; 4: c")


def test_chunks_that_see_the_same_prompts_are_not_sampled_again(fake_helios, memory, monkeypatch, tmp_path):
    """As ComfyUI runs the graph after the last prompt was changed: every node anew, with new objects."""
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path))

    def film(text):
        state, latents = memory, []
        for _ in range(3):
            latent, state = sample(fake_helios, scheduled(fake_helios, text), state)
            latents.append(latent["samples"])
        return latents

    first, made = film("0: a b; 2: c"), len(fake_helios.calls)
    second = film("0: a b; 2: d e f")
    assert made == 3 and len(fake_helios.calls) == 4
    assert all(torch.equal(a, b) for a, b in zip(first[:2], second[:2])) and not torch.equal(first[2], second[2])
    film("0: other; 2: c")
    assert len(fake_helios.calls) == 7
    sample(fake_helios, scheduled(fake_helios, "0: a b; 2: c"), memory, cfg=2.0)
    assert len(fake_helios.calls) == 8


def test_several_prompts_make_a_batch(fake_helios):
    def texts(prompts):
        return Embedding.of(torch.cat([fake_helios.text(prompt).padded for prompt in prompts]))

    ((embedding, _),) = call("T5Encode", text_encoder=texts, text=" a b \n\nc d e\n", one_per_line=True)[0]
    assert torch.equal(embedding, texts(["a b", "c d e"]).padded)
    with pytest.raises(ValueError, match="wanted a prompt per line"):
        call("T5Encode", text_encoder=texts, text=" \n ", one_per_line=True)


FOLDER = Path(pack.__file__).parent / "workflows"


@pytest.mark.parametrize("name", ["prompt_schedule.json", "api/prompt_schedule.json"])
def test_the_workflow_shows_each_sampler_its_prompt(name, tmp_path, fake_loader):
    result = run(
        FOLDER / name, pack.NODE_CLASS_MAPPINGS, {"Prompts.text": "0: a b; 1 (2): c d e; 3: f"}, output_dir=tmp_path
    )
    first, second, third = (fake_loader.text(prompt).padded for prompt in ("a b", "c d e", "f"))
    for asked, text in zip(fake_loader.calls, (first, (first + second) / 2, second, third), strict=True):
        assert torch.allclose(asked["positive"].padded, text)
    assert video.probe(result.files[0]).frames == 132
    with pytest.raises(ValueError, match="Prompts.*does not begin with a chunk"):
        run(FOLDER / name, pack.NODE_CLASS_MAPPINGS, {"Prompts.text": "a b"}, output_dir=tmp_path)


def test_the_workflow_runs_on_helios_tiny(tmp_path):
    """Red, then between red and yellow, then yellow, then blue: the colour of the most colourful pixels of a chunk."""
    assert main(["run", str(FOLDER / "prompt_schedule.json"), "--output-dir", str(tmp_path)]) == 0
    frames = video.read_frames(next(tmp_path.rglob("*.mp4"))).astype(int)
    pixels = [frames[33 * k + 4 : 33 * k + 30].reshape(-1, 3) for k in range(4)]
    shape = [p[np.argsort(p.max(1) - p.min(1))[-2000:]].mean(0) for p in pixels]
    green = [rgb[1] for rgb in shape[:3]]
    assert all(rgb[0] > 200 and rgb[2] < 80 for rgb in shape[:3]) and shape[3][2] > 180 > shape[3][0]
    assert green[0] + 15 < green[1] < green[2] - 60, green
