"""Segments taken from the store of finished ones: the same frames, nothing decoded, and made anew where damaged."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from helios_video.helios_core.disk.store import Store
from helios_video.helios_core.join import Boundary, Clip, append_kept, join, kept, restore, video

MATCH = Boundary("match", 4)


def frames(seed, count=6):
    rng = np.random.default_rng(seed)
    base = rng.integers(40, 200, (16, 32, 3)).repeat(1, 0)
    return np.clip(base + np.arange(count)[:, None, None, None] * 2, 0, 255).astype(np.uint8)


class Film:
    """Makes clips of chunks, each in a folder of its own, and counts what is decoded."""

    def __init__(self, folder):
        self.folder, self.store, self.decoded, self.clips = folder, Store(folder / "store"), [], 0

    def blocks(self, seed):
        self.decoded.append(seed)
        yield frames(seed)[:3]
        yield frames(seed)[3:]

    def make(self, seeds, boundary=MATCH, fps=24, known=True):
        self.clips += 1
        clip = Clip.new(self.folder / f"clip{self.clips}", fps)
        for seed in seeds:
            made_of = ("model", seed) if known else None
            clip = append_kept(clip, self.blocks(seed), boundary, made_of=made_of, store=self.store)
        return clip


@pytest.fixture
def film(tmp_path):
    return Film(tmp_path)


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one.frames(), two.frames(), strict=True))


def test_only_new_chunks_are_decoded_and_joints_are_the_same(film):
    first = film.make([1, 2])
    longer = film.make([1, 2, 3])
    assert film.decoded == [1, 2, 3] and longer.num_frames == 18 and longer.size == (32, 16)
    film.store.folder.rename(film.folder / "away")
    plain = film.make([1, 2, 3])
    assert film.decoded == [1, 2, 3, 1, 2, 3] and same(longer, plain) and same(first, film.make([1, 2]))


@pytest.mark.parametrize("change", [{"boundary": Boundary()}, {"fps": 12}])
def test_what_else_counts_makes_it_anew(film, change):
    film.make([1, 2])
    film.make([1, 2], **change)
    assert film.decoded == [1, 2, 1, 2]


def test_another_chunk_before_makes_it_anew(film):
    film.make([1, 2])
    film.make([3, 2])
    assert film.decoded == [1, 2, 3, 2], "its joint is another"


def test_what_does_not_say_what_it_is_made_of_is_never_taken(film):
    film.make([1], known=False)
    film.make([1], known=False)
    clip = film.make([1])
    grown = append_kept(clip, film.blocks(2), MATCH, made_of=None, store=film.store)
    append_kept(grown, film.blocks(3), MATCH, made_of=("model", 3), store=film.store)
    append_kept(grown, film.blocks(3), MATCH, made_of=("model", 3), store=film.store)
    assert film.decoded == [1, 1, 1, 2, 3, 3] and grown.made == ""


@pytest.mark.parametrize("spoil", ["cut", "gone", "other"])
def test_a_damaged_segment_is_made_anew(film, spoil):
    film.make([1])
    (path,) = film.store.folder.glob("*.mp4")
    if spoil == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        path.unlink()  # the clip's own file is the same one
        path.write_bytes(data[: len(data) // 2] if spoil == "cut" else b"no film")
    clip = film.make([1])
    assert film.decoded == [1, 1] and clip.num_frames == 6 and film.make([1]).num_frames == 6
    assert film.decoded == [1, 1], "and kept again"


def test_emptying_the_clips_folder_leaves_the_store(film):
    clip = film.make([1])
    clip.segments[0].path.unlink()
    again = film.make([1])
    assert film.decoded == [1] and video.probe(again.segments[0].path).frames == 6


def test_what_is_gone_from_the_clips_folder_comes_back(film):
    clip = film.make([1, 2])
    before = list(clip.frames())
    clip.segments[1].path.unlink()
    restore(clip, film.store)
    assert not clip.missing and all(map(np.array_equal, clip.frames(), before))
    shutil.rmtree(clip.folder)
    assert clip.missing == ["chunk_0000.mp4", "chunk_0001.mp4"]
    restore(clip, film.store)
    assert video.probe(join(clip, clip.folder / "x.mp4")).frames == 12
    grown = append_kept(clip, film.blocks(3), MATCH, made_of=("model", 3), store=film.store)
    assert grown.num_frames == 18 and film.decoded == [1, 2, 3]


def test_only_what_is_whole_and_known_comes_back(film):
    clip, unknown = film.make([1]), film.make([1], known=False)
    for one in (clip, unknown):
        one.segments[0].path.unlink()
    restore(clip, None)
    (path,) = film.store.folder.glob("*.mp4")
    path.write_bytes(b"no film")
    for one in (clip, unknown):
        restore(one, film.store)
        assert one.missing == ["chunk_0000.mp4"]


def test_another_encoding_is_made_anew(film, monkeypatch):
    """Files of two encodings cannot be joined."""
    film.make([1])
    monkeypatch.setattr(video, "ENCODER", {**video.ENCODER, "preset": "fast"})
    film.make([1, 2])
    assert film.decoded == [1, 1, 2]


def test_a_disk_that_fails_leaves_no_half_segment(film, monkeypatch):
    film.make([1])

    def refuse(*_):
        raise OSError("full")

    monkeypatch.setattr(kept, "link", refuse)
    clip = film.make([1])
    assert film.decoded == [1, 1] and [path.name for path in clip.folder.iterdir()] == ["chunk_0000.mp4"]
