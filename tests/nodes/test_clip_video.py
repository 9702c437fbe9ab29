"""VIDEO of a clip: joined when it is wanted, and never by somebody who only looks."""

from __future__ import annotations

import shutil
from fractions import Fraction
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from helios_video.helios_core.join import Clip, video
from helios_video.nodes import clip_video, host

# What ComfyUI 0.33 asks of cached outputs, what inspection and copying ask, and names that nobody has.
SCANNED = (
    "patcher",
    "get_models",
    "model",
    "clone",
    "_comfy_cache_tensors",
    "__array__",
    "__len__",
    "shape",
    "nonsense",
)


@pytest.fixture
def clip(tmp_path):
    made = Clip.new(tmp_path / "clip", 12)
    for shade in (40, 90):
        made = made.append(np.full((8, 16, 32, 3), shade, np.uint8))
    return made


def files(clip):
    return sorted(path.name for path in clip.folder.iterdir())


def test_looking_touches_no_disk_and_raises_nothing(clip):
    film, before = clip_video.video(clip), files(clip)
    assert not [name for name in SCANNED if hasattr(film, name)]
    assert hasattr(film, "save_to") and hasattr(film, "get_components")
    assert (film.get_dimensions(), film.get_frame_count(), film.get_frame_rate()) == ((32, 16), 16, Fraction(12))
    assert files(clip) == before, "nothing was joined"
    shutil.rmtree(clip.folder)
    assert not hasattr(film, "patcher") and hasattr(film, "get_stream_source") and repr(film)


def test_it_is_joined_once_when_it_is_wanted(clip):
    film = clip_video.video(clip, 10)
    path = film.get_stream_source()
    assert video.probe(path).frames == 10 == film.get_frame_count() and film.get_stream_source() == path
    assert len(files(clip)) == 3 and film.get_components().images.shape == (10, 16, 32, 3)
    assert clip_video.video(clip, 999).get_frame_count() == 16


def test_a_lost_chunk_is_an_error_of_the_one_who_wants_the_file(clip, tmp_path):
    film = clip_video.video(clip)
    clip.segments[0].path.unlink()
    with pytest.raises(ValueError, match="no longer holds"):
        film.save_to(str(tmp_path / "x.mp4"))


def test_it_follows_comfyuis_class_where_that_grows(clip, monkeypatch):
    class Video:
        def get_waveform(self):
            """Of a later version."""

        @classmethod
        def register(cls, kind):
            pass

    def later(path):
        return SimpleNamespace(get_waveform=lambda: path)

    api = ModuleType("api")
    api.Input, api.InputImpl = SimpleNamespace(Video=Video), SimpleNamespace(VideoFromFile=later)
    monkeypatch.setattr(host, "comfy", lambda name: api)
    film = clip_video.video(clip)
    assert not hasattr(film, "patcher") and film.get_waveform().endswith("_16.mp4")
