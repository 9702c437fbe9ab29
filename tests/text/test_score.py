"""The score: settings in brackets, what holds for which chunk, and a writer that the parser reads back."""

from __future__ import annotations

import random

import pytest
from helios_video.helios_core.text import Direction, Picture, PromptSchedule
from helios_video.helios_core.text.editing import edit, escape, read, write
from helios_video.helios_core.text.prompts import Cue

SCORE = '0 [seed 3]: a red [big] circle; 4 (2) [cfg  2, cut, image "a b, c].png" 0.4]: a square ;\n 6 [seed 4,drift 0]:'


def test_settings_stand_in_brackets_and_a_prompt_may_be_left_out():
    picture = Picture("a b, c].png", 0.4)
    assert PromptSchedule.parse(SCORE).cues == (
        Cue(0, "a red [big] circle", 1, Direction(seed=3)),
        Cue(4, "a square", 2, Direction(cfg=2.0, cut=True, image=picture)),
        Cue(6, "", 1, Direction(seed=4, drift=0.0)),
    )


@pytest.mark.parametrize(
    "prompt",
    ["a [seed 3] sown", "x\n4 [wide shot]: y", "x; 4 []: y", "[cut] to black", "x\n[seed 3]: y", "x; 4 [16:9]: y"],
)
def test_other_brackets_are_text_as_they_were(prompt):
    assert PromptSchedule.parse(f"0: {prompt}").cues == (Cue(0, prompt),)


def test_what_holds_and_what_is_of_one_chunk():
    score = PromptSchedule.parse(SCORE)
    held = [(d.seed, d.cfg, d.drift) for d in map(score.direction, range(8))]
    assert held == [(3, None, None)] * 4 + [(3, 2.0, None)] * 2 + [(4, 2.0, 0.0)] * 2
    assert [d.cut for d in map(score.direction, range(8))] == [k == 4 for k in range(8)]
    assert score.pictures == ("a b, c].png",) and score.direction(5).image is None
    assert score.shares(6) == (("a square", 1.0),) and dict(score.shares(4))["a square"] == 0.5
    assert PromptSchedule.parse("0: a; 2 (4): b; 3 [seed 9]:").shares(4) == (("a", 0.25), ("b", 0.75))


def test_the_end_is_of_the_video():
    score = PromptSchedule.parse("0: a; 4 [end]:")
    assert (score.end, PromptSchedule.parse("0: a").end) == (4, None)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("4 [sed 7]: b", "chunk 4: unknown setting 'sed'; wanted some of"),
        ("4 [seed x]:", "seed 'x': wanted a whole number from 0 to 18446744073709551615"),
        ("4 [seed 18446744073709551616]:", "seed '18446744073709551616': wanted a whole number"),
        ("4 [seed 7,]: b", "a setting is missing beside a comma"),
        ("4 [cfg 101]:", "cfg '101': wanted a number from 0 to 100"),
        ("4 [drift 1.5]:", "drift '1.5': wanted a number from 0 to 1"),
        ("4 [image cat.png]: b", "image 'cat.png': wanted a file's name and a strength"),
        ("4 [image cat.png 0]: b", "strength above 0, up to 1"),
        ("4 [image cat.png 2]: b", "strength above 0, up to 1"),
        ("4 [cut now]: b", "cut takes nothing behind it, got 'now'"),
        ("4 [cut, cut]: b", "cut comes twice"),
        ("4 (2) [seed 4]:", "chunk 4 has no prompt to blend in"),
        ("4 [seed 4]:; 4: b", "chunk 4 comes twice"),
        ("4:", "chunk 4: the prompt is empty"),
        ("4 [seed 3 b", "chunk 4: its brackets are not closed"),
        ("4 (2) [cut: b; 5: c", "chunk 4: its brackets are not closed"),
    ],
)
def test_a_bad_setting_says_what_is_wrong(entry, says):
    with pytest.raises(ValueError, match=says):
        PromptSchedule.parse(f"0: a; {entry}")


@pytest.mark.parametrize("text", ["0 [seed 4]:", "0 [seed 4]:; 1: a", "0 [end]: a"])
def test_the_first_chunk_needs_a_prompt_and_is_made(text):
    with pytest.raises(ValueError, match="the first prompt begins|there is no prompt|cannot end before chunk 0"):
        PromptSchedule.parse(text)


@pytest.mark.parametrize(
    ("chunk", "changes", "old", "new"),
    [
        (4, {"seed": 7}, "0.4]:", "0.4, seed 7]:"),
        (4, {"cut": False}, "cfg  2, cut, image", "cfg  2, image"),
        (4, {"cut": False, "cfg": None, "image": None}, ' [cfg  2, cut, image "a b, c].png" 0.4]', ""),
        (4, {"blend": 1}, " (2)", ""),
        (4, {"prompt": "x; y"}, "a square", r"x\; y"),
        (5, {"seed": 9}, "a square", "a square\n5 [seed 9]:"),
        (6, {"seed": 5}, "seed 4", "seed 5"),
        (6, {"seed": None, "drift": None}, ";\n 6 [seed 4,drift 0]:", ""),
        (6, {"prompt": "new"}, "drift 0]:", "drift 0]: new"),
        (8, {"image": ("cat.png", 1), "prompt": "a\n5: b"}, "drift 0]:", "drift 0]:\n8 [image cat.png 1]: a 5: b"),
        (0, {"seed": 3}, "", ""),
    ],
)
def test_an_edit_changes_its_own_characters_alone(chunk, changes, old, new):
    assert edit(SCORE, chunk, **changes) == SCORE.replace(old, new, 1)


@pytest.mark.parametrize(
    ("chunk", "changes", "says"),
    [
        (0, {"prompt": None}, "the first prompt begins at chunk 4"),
        (9, {"seed": -1}, "seed '-1'"),
        (9, {"seed": True}, "seed: cannot be True"),
        (9, {"cfg": "3"}, "cfg: cannot be '3'"),
        (9, {"cfg": float("nan")}, "cfg 'nan'"),
        (9, {"image": "cat.png"}, "image 'cat.png': wanted a file's name and a strength, such as"),
        (9, {"image": ['"', 1]}, "rename it"),
        (9, {"blend": 2}, "no prompt to blend in"),
        (9, {"steps": 2}, "unknown steps; wanted prompt, blend, seed"),
        (-1, {"seed": 2}, "chunk must be at least 0"),
    ],
)
def test_an_edit_that_cannot_be_says_why(chunk, changes, says):
    with pytest.raises(ValueError, match=says):
        edit(SCORE, chunk, **changes)


PIECES = ["a", "b ", " ;", "; 3", ":", "\n", "12:30", "[cut]", "\\", "(2)", "4 [seed 3]:", "[", "\xe9", "\t"]
NAMES = ["a.png", "b c.jpg", "x,]y", "\xfc/z.webp", " lead", "4: x"]


def drawn(rng: random.Random) -> PromptSchedule | None:
    cues, chunk = [], 0
    for i in range(rng.randint(1, 5)):
        image = rng.choice([None, Picture(rng.choice(NAMES), rng.random() or 1.0)])
        direction = Direction(
            rng.choice([None, rng.randrange(2**64)]), rng.choice([None, rng.random() * 100]),
            rng.choice([None, rng.random()]), image, rng.random() < 0.3, i > 0 and rng.random() < 0.1,
        )  # fmt: skip
        prompt = read(escape("".join(rng.choice(PIECES) for _ in range(rng.randint(1, 12)))))
        alone = i > 0 and direction and rng.random() < 0.3
        cue = Cue(chunk, "" if alone else prompt, 1 if alone or not i else rng.randint(1, 3), direction)
        cues.append(cue)
        chunk += cue.blend + rng.randint(0, 3)
    try:
        return PromptSchedule(tuple(cues))
    except ValueError:  # a prompt of white space alone
        return None


def test_what_is_written_is_read_back():
    rng = random.Random(0)
    found = [score for _ in range(1500) if (score := drawn(rng)) is not None]
    assert len(found) > 1000
    for score in found:
        assert PromptSchedule.parse(write(score)) == score


def test_edits_of_drawn_scores_are_read_as_meant():
    rng = random.Random(1)
    for score in [score for _ in range(400) if (score := drawn(rng)) is not None]:
        text, chunk = write(score), rng.randint(0, 12)
        word, value = rng.choice([("seed", rng.choice([None, 5])), ("cfg", rng.choice([None, 2.5])), ("cut", True)])
        old = next((cue.direction for cue in score.cues if cue.chunk == chunk), Direction())
        try:
            new = edit(text, chunk, **{word: value})
        except ValueError:  # the entry would be left with a blend and nothing to blend in
            continue
        found = next((cue.direction for cue in PromptSchedule.parse(new).cues if cue.chunk == chunk), Direction())
        assert found == Direction(**{**vars(old), word: value})
