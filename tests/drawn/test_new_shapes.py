"""Stars, hearts and pink: drawn and read on request, and no part of helios-tiny's vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from helios_video.helios_core.drawn import draw, reading, scenes, words


@pytest.mark.parametrize("colour", ["pink", "yellow"])
@pytest.mark.parametrize("shape", scenes.ALL_SHAPES)
def test_each_is_read_as_what_it_is(shape, colour):
    for motion, background in (("left", "striped"), ("circling", "checkered"), ("still", "plain")):
        one = scenes.scene(colour, shape, motion, background, radius=11.5)
        found = reading.read_video(draw(one, 33), scenes.ALL_COLOURS, scenes.ALL_SHAPES)
        assert all(found.matches(one).values()), (one.caption(), found)


def test_the_usual_judge_and_vocabulary_do_not_know_them():
    assert not {"pink"} & set(scenes.COLOURS) and not {"star", "heart"} & set(scenes.SHAPES)
    assert words.unknown_words("a pink star and a heart") == ["pink", "star", "heart"]
    rng = np.random.default_rng(0)
    drawn = [thing for _ in range(300) for thing in scenes.random_scene(rng).things]
    assert {thing.shape for thing in drawn} == set(scenes.SHAPES)
    assert {thing.colour for thing in drawn} == set(scenes.COLOURS)
