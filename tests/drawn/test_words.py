"""The words of helios-tiny: no caption has another one, and what it does not know is said once."""

import numpy as np
from helios_video.helios_core import load
from helios_video.helios_core.drawn import random_scene, words


def test_captions_hold_no_unknown_word():
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = random_scene(rng)
        assert not [word for variant in range(3) for word in words.unknown_words(scene.caption(variant))]


def test_unknown_words_are_named_in_their_order():
    assert words.unknown_words("A red CAT, moving left; a cat and 2 dogs!") == ["cat", "dogs"]
    assert words.unknown_words("\u7ea2\u5706") == ["\u7ea2\u5706"] and not words.told("a red circle")
    assert words.told("one two three four five six seven").count(",") > 4


def test_they_are_said_once(caplog):
    helios = load()
    for prompt in ("", "a red circle", "a cat", "a dog"):
        helios.text(prompt)
    assert [record.getMessage().count("cat") for record in caplog.records] == [1]
