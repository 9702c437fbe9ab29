"""The measuring code reads drawn videos, whose truth is known, and sees what was done to them."""

from dataclasses import replace

import numpy as np
import pytest
from helios_video.helios_core.drawn import scenes as shapes
from helios_video.helios_core.drawn.reading import read_video


def scenes(count: int):
    rng = np.random.default_rng(5)
    return [shapes.random_scene(rng) for _ in range(count)]


def test_reads_every_attribute_of_drawn_videos():
    for scene in scenes(40):
        assert all(read_video(shapes.draw(scene, 33)).matches(scene).values()), scene


def test_reads_later_chunks_that_wrap_around():
    for scene in scenes(12):
        assert all(read_video(shapes.draw(scene, 33, first=99)).matches(scene).values()), scene


def test_travel_is_in_pixels():
    scene = shapes.scene("red", "circle", "left", "plain", starts=((48.0, 32.0),))
    x, y = read_video(shapes.draw(scene, 33)).objects[0].travel
    assert abs(x + 32 * shapes.SPEED) < 1 and abs(y) < 1


def test_survives_noise_and_blur():
    rng = np.random.default_rng(0)
    for scene in scenes(8):
        frames = shapes.draw(scene, 33).astype(float)
        blurred = sum(np.roll(frames, (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
        noisy = np.clip(blurred + rng.normal(0, 8, frames.shape), 0, 255).astype(np.uint8)
        assert all(read_video(noisy).matches(scene).values()), scene


def test_reversed_video_moves_the_other_way():
    scene = shapes.scene("blue", "square", "up", "striped", starts=((32.0, 48.0),))
    assert read_video(shapes.draw(scene, 33)[::-1]).objects[0].motion == "down"


def test_a_stopped_video_stands_still_and_an_empty_one_shows_nothing():
    scene = shapes.scene("green", "triangle", "left", "plain")
    frozen = read_video(np.repeat(shapes.draw(scene, 1), 33, axis=0))
    assert [o.motion for o in frozen.objects] == ["still"]
    assert not frozen.matches(scene)["motion"]
    empty = np.repeat((shapes.backdrop("plain")[None] * 255).astype(np.uint8), 33, axis=0)
    assert read_video(empty).objects == ()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"things": (shapes.Thing("red", "square"), shapes.Thing("blue", "ring"))}, {"shape"}),
        ({"things": (shapes.Thing("red", "circle"), shapes.Thing("green", "ring"))}, {"colour"}),
        ({"things": (shapes.Thing("red", "circle"),), "starts": ((40.0, 16.0),)}, {"count"}),
        ({"motion": "right"}, {"motion"}),
        ({"background": "checkered"}, {"background"}),
    ],
)
def test_each_wrong_attribute_is_counted_alone(change, wrong):
    """What is asked for differs from what is drawn in one attribute; only that one is wrong."""
    drawn = shapes.scene("red", "circle", "left", "striped", starts=((40.0, 16.0), (40.0, 48.0)))
    drawn = replace(drawn, things=(shapes.Thing("red", "circle"), shapes.Thing("blue", "ring")))
    asked = replace(drawn, **change)
    found = read_video(shapes.draw(drawn, 33)).matches(asked)
    assert {name for name, right in found.items() if not right} == wrong


def test_held_out_scenes_are_a_tenth_and_never_trained_on():
    rng = np.random.default_rng(0)
    assert not any(shapes.random_scene(rng, held_out=False).held_out() for _ in range(50))
    assert all(shapes.random_scene(rng, held_out=True).held_out() for _ in range(20))
    share = np.mean([shapes.random_scene(rng).held_out() for _ in range(1000)])
    assert 0.05 < share < 0.15
