"""What the model remembers: numbering, window, anchor and immutability (spec of the published stage 1), D3, C4."""

import dataclasses

import numpy as np
import pytest
from helios_video.helios_core.history.window import History, parse_sizes

SHAPE = (2, 4, 6)  # channels, height, width


def empty(sizes=(16, 2, 1), keep_first_frame=True, b=1):
    c, h, w = SHAPE
    frames = History.length(sizes, keep_first_frame)
    return History(np.zeros((b, c, frames, h, w), np.float32), sizes=sizes, keep_first_frame=keep_first_frame)


def numbered(first, count=9, b=1):
    """A chunk whose frames hold their own number."""
    c, h, w = SHAPE
    values = np.arange(first, first + count, dtype=np.float32)
    return np.broadcast_to(values[None, None, :, None, None], (b, c, count, h, w)).copy()


def numbers(part):
    assert (part == part[:, :1, :, :1, :1]).all()
    return part[0, 0, :, 0, 0].tolist()


def test_frame_numbers():
    parts = empty().parts(9)
    assert parts.short_index == (0, 19)
    assert parts.long_index == tuple(range(1, 17))
    assert parts.mid_index == (17, 18)
    assert parts.current_index == tuple(range(20, 29))


def test_frame_numbers_are_those_of_diffusers():
    """arange over prefix, long, mid, one, current, split in that order; the same for every chunk."""
    import torch

    history = empty((8, 3, 2))
    for chunk in range(3):
        prefix, long, mid, one, current = torch.arange(1 + 8 + 3 + 2 + 9).split([1, 8, 3, 2, 9])
        parts = history.parts(9)
        assert parts.short_index == (*prefix.tolist(), *one.tolist())
        assert parts.long_index == tuple(long.tolist()) and parts.mid_index == tuple(mid.tolist())
        assert parts.current_index == tuple(current.tolist())
        history = history.append(numbered(9 * chunk))


def test_d3_without_a_first_frame():
    """16, 2, 2: no anchor, one short term frame more, numbers from 0. diffusers cannot run this."""
    history = empty(keep_first_frame=False)
    assert history.window.shape[2] == 20
    for chunk in range(3):
        history = history.append(numbered(1 + 9 * chunk))
    parts = history.parts(9)
    assert history.anchor is None
    assert parts.long_index == tuple(range(16)) and parts.mid_index == (16, 17) and parts.short_index == (18, 19)
    assert parts.current_index == tuple(range(20, 29))
    assert numbers(parts.long) == list(range(8, 24)) and numbers(parts.mid) == [24, 25]
    assert numbers(parts.short) == [26, 27]


def test_c4_no_history_is_exactly_zero():
    parts = empty(b=2).parts(9)
    for part, frames in ((parts.long, 16), (parts.mid, 2), (parts.short, 2)):
        assert part.shape == (2, SHAPE[0], frames, *SHAPE[1:])
        assert (part == 0).all()


def test_window_and_anchor_over_three_chunks():
    history = empty().append(numbered(1))
    parts = history.parts(9)
    assert numbers(parts.short) == [1, 9] and numbers(parts.mid) == [7, 8]
    assert numbers(parts.long) == [0] * 10 + [1, 2, 3, 4, 5, 6]
    history = history.append(numbered(10)).append(numbered(19))
    parts = history.parts(9)
    assert history.chunk == 3
    assert numbers(parts.short) == [1, 27] and numbers(parts.mid) == [25, 26]
    assert numbers(parts.long) == list(range(9, 25))


def test_anchor_is_kept_where_there_is_one():
    """Image to video: the image stays the anchor; the first chunk does not replace it."""
    image = numbered(70, 1)
    history = dataclasses.replace(empty(), anchor=image).append(numbered(1))
    assert numbers(history.parts(9).short) == [70, 9]


def test_a_chunk_longer_than_the_window():
    history = empty((4, 2, 1)).append(numbered(1))
    parts = history.parts(9)
    assert numbers(parts.long) == [3, 4, 5, 6] and numbers(parts.mid) == [7, 8] and numbers(parts.short) == [1, 9]


def test_two_short_term_frames():
    parts = empty((4, 2, 2)).append(numbered(1)).parts(9)
    assert numbers(parts.short) == [1, 8, 9] and parts.short_index == (0, 7, 8)
    assert (empty((4, 2, 2)).parts(9).short == 0).all() and empty((4, 2, 2)).parts(9).short.shape[2] == 3


def test_append_gives_a_new_history_and_changes_nothing():
    first, chunk = empty(), numbered(1)
    before = chunk.copy()
    second = first.append(chunk)
    third = second.append(numbered(10))
    assert first.chunk == 0 and first.anchor is None and (first.window == 0).all()
    assert second.chunk == 1 and numbers(second.window)[-9:] == list(range(1, 10))
    assert third.chunk == 2 and np.array_equal(chunk, before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        second.chunk = 5


def test_a_history_does_not_follow_a_chunk_that_is_changed_later():
    chunk = numbered(1)
    history = empty().append(chunk)
    chunk[:] = 99
    assert numbers(history.anchor) == [1] and numbers(history.parts(9).mid) == [7, 8]


def test_torch_arrays():
    import torch

    history = empty()
    torches = dataclasses.replace(history, window=torch.from_numpy(history.window))
    for chunk in range(2):
        history = history.append(numbered(1 + 9 * chunk))
        torches = torches.append(torch.from_numpy(numbered(1 + 9 * chunk)))
    for want, got in zip(history.parts(9)[:3], torches.parts(9)[:3], strict=True):
        assert isinstance(got, torch.Tensor) and np.array_equal(got.numpy(), want)


@pytest.mark.parametrize("shape", [(1, 2, 9, 4, 8), (1, 3, 9, 4, 6), (2, 2, 9, 4, 6)])
def test_chunks_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="does not fit"):
        empty().append(np.zeros(shape, np.float32))


@pytest.mark.parametrize("sizes,frames", [((16, 2, 1), 20), ((16, 0, 1), 17), ((16, 2), 18)])
def test_windows_that_do_not_fit_the_sizes_are_refused(sizes, frames):
    with pytest.raises(ValueError, match="wanted three positive numbers"):
        History(np.zeros((1, 2, frames, 4, 6), np.float32), sizes=sizes)


def test_parse_sizes():
    assert parse_sizes("16,2,1") == parse_sizes("16 2 1") == (16, 2, 1)
    for text in ("", "16,2", "16,0,1", "a,b,c", "1,2,3,4"):
        with pytest.raises(ValueError, match="three positive"):
            parse_sizes(text)
