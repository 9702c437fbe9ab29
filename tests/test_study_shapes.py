"""The measuring code reads drawn videos, whose truth is known, and sees what was done to them."""

import numpy as np
from helios_video.helios_core.study.shapes import read_video
from helios_video.helios_core.training import shapes


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
    scene = shapes.Scene("red", "circle", "left", "plain", (48.0, 32.0))
    x, y = read_video(shapes.draw(scene, 33)).travel
    assert abs(x + 32 * shapes.SPEED) < 1 and abs(y) < 1


def test_survives_noise_and_blur():
    rng = np.random.default_rng(0)
    for scene in scenes(8):
        frames = shapes.draw(scene, 33).astype(float)
        blurred = sum(np.roll(frames, (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
        noisy = np.clip(blurred + rng.normal(0, 8, frames.shape), 0, 255).astype(np.uint8)
        assert all(read_video(noisy).matches(scene).values()), scene


def test_reversed_video_moves_the_other_way():
    scene = shapes.Scene("blue", "square", "up", "striped", (32.0, 48.0))
    assert read_video(shapes.draw(scene, 33)[::-1]).direction == "down"


def test_still_and_empty_videos():
    scene = shapes.Scene("green", "triangle", "left", "plain", (32.0, 32.0))
    assert read_video(np.repeat(shapes.draw(scene, 1), 33, axis=0)).direction is None
    empty = np.repeat((shapes.backdrop("plain")[None] * 255).astype(np.uint8), 33, axis=0)
    assert read_video(empty).colour is None
