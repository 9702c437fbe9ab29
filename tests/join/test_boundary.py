"""Where chunks meet: what is left alone to the bit (M16), what is repaired (M17), and what is another picture."""

import dataclasses
import pickle
import tracemalloc

import numpy as np
import pytest
from helios_video.helios_core.drawn import scenes as shapes
from helios_video.helios_core.join import boundary, video
from helios_video.helios_core.join.boundary import Boundary, Tail, follow, is_cut
from helios_video.helios_core.join.clip import Clip, join
from helios_video.helios_core.measure.joints import frame_statistics, joints

CHUNK = 33
MATCH = Boundary("match")


def texture(seed, size=(96, 160)):
    """A picture with detail at every scale, as photographs have: float [h, w, 3], 20..235 or so."""
    rng, (h, w) = np.random.default_rng(seed), size
    frequency = np.hypot(np.fft.fftfreq(h)[:, None] * h, np.fft.fftfreq(w) * w)[..., None]
    spectrum = np.fft.fft2(rng.standard_normal((h, w, 3)), axes=(0, 1)) / np.maximum(frequency, 1)
    picture = np.fft.ifft2(spectrum, axes=(0, 1)).real
    return 128 + 40 * (picture - picture.mean((0, 1))) / picture.std((0, 1))


def pan(picture, frames=2 * CHUNK, speed=2):
    """A camera that pans over it."""
    return to_uint8(np.stack([np.roll(picture, speed * i, 1) for i in range(frames)]))


def to_uint8(x):
    return np.rint(x).clip(0, 255).astype(np.uint8)


def scenes(count, seed=0):
    rng = np.random.default_rng(seed)
    return [shapes.random_scene(rng) for _ in range(count)]


def less_contrast(frames, by=0.07):
    middle = frames.mean((1, 2), keepdims=True)
    return to_uint8(middle + (frames - middle) * (1 - by))


def joined(before, after, policy=MATCH, blocks=(1, 4, 4, 4)):
    """`after` as it follows `before`, given in blocks as a decoder does."""
    edges = np.cumsum(blocks)
    parts = [part for part in np.split(after, edges) if len(part)]
    return np.concatenate(list(follow(parts, Tail.of(before), policy)))


def jumps(before, after):
    return {k: v["jump"] for k, v in joints(frame_statistics(np.concatenate([before, after])), len(before)).items()}


def films():
    """Drawn shapes whose luma stands out, and textures that pan and that stand still."""
    drawn = [shapes.draw(scene, 2 * CHUNK) for scene in scenes(16) if scene.motion != "growing"]  # changes contrast
    drawn = [v for v in drawn if frame_statistics(v[:1])["contrast"][0] > 0.02]
    assert len(drawn) > 10
    return [*drawn, *(pan(texture(seed)) for seed in range(3)), *(pan(texture(seed), speed=0) for seed in range(2))]


def test_m16_none_is_plain_concatenation_to_the_bit(tmp_path):
    chunks = [shapes.draw(scene, 12) for scene in scenes(3)]
    for before, after in zip(chunks, chunks[1:]):
        assert np.array_equal(joined(before, after, Boundary()), after)
    plain, none = Clip.new(tmp_path / "plain"), Clip.new(tmp_path / "none")
    for chunk in chunks:
        plain, none = plain.append(chunk), none.append(chunk, Boundary("none"))
    for a, b in zip(plain.segments, none.segments):
        assert a.path.read_bytes() == b.path.read_bytes()
    assert Boundary() == Boundary("none", drop_first_frame=False), "the default changes nothing"


@pytest.mark.parametrize("policy", ["match", "crossfade"])
def test_the_first_chunk_is_never_changed(policy):
    frames = pan(texture(0), 9)
    assert np.array_equal(np.concatenate(list(follow([frames], None, Boundary(policy, 6, True)))), frames)


def test_m17_an_untouched_joint_stays_bit_equal():
    """One film cut in two anywhere: what moves, enters a cell or leaves it is no jump."""
    count = 0
    for film in films():
        for at in range(5, 60, 7):
            count += 1
            assert np.array_equal(joined(film[:at], film[at:]), film[at:]), at
    assert count > 120


def test_m17_a_joint_below_the_dead_zone_stays_bit_equal():
    still = pan(texture(0), speed=0)
    after = still[CHUNK:] + np.uint8(1)
    assert np.array_equal(joined(still[:CHUNK], after), after)
    for by, touched in ((0.005, False), (0.02, True)):
        after = less_contrast(still[CHUNK:], by)
        assert np.array_equal(joined(still[:CHUNK], after), after) != touched


def test_m17_a_contrast_drop_of_7_percent_is_repaired_to_under_1():
    for film in films():
        before, after = film[:CHUNK], less_contrast(film[CHUNK:])
        assert 0.05 < jumps(before, after)["contrast"] < 0.09
        repaired = joined(before, after)
        assert jumps(before, repaired)["contrast"] < 0.01
        assert np.array_equal(repaired[6:], after[6:]), "the ramp ends after six frames"
        steps = np.diff(frame_statistics(repaired[:8])["contrast"]) / frame_statistics(film[:1])["contrast"][0]
        assert abs(steps).max() < 0.035, "no other jump in place of the one at the joint"


@pytest.mark.parametrize("shape", ["even", "slope", "corner"])
def test_m17_brightness_is_repaired_where_it_jumped(shape):
    """Evenly by 12 levels, more and more from left to right up to 20, or most of all in one corner."""
    film = pan(texture(3), speed=1)
    h, w = film.shape[1:3]
    x, y = np.meshgrid(np.linspace(0, 1, w), np.linspace(0, 1, h))
    light = {"even": 12 + 0 * x, "slope": 20 * x, "corner": 30 * np.exp(-2 * (x**2 + y**2))}[shape][..., None]
    after = to_uint8(film[CHUNK:] + light)
    repaired = joined(film[:CHUNK], after)
    lost = [abs(out[0].astype(float) - film[CHUNK]) for out in (after, repaired)]
    assert lost[1].mean() < 0.12 * lost[0].mean()
    assert jumps(film[:CHUNK], repaired)["luma"] < 0.005
    assert jumps(film[:CHUNK], repaired)["contrast"] < 0.01


def test_match_keeps_sharpness_and_a_crossfade_costs_it_m16():
    film = pan(texture(1), speed=3)
    before, after = film[:CHUNK], less_contrast(film[CHUNK:])
    detail = {}
    for policy in boundary.POLICIES:
        found = frame_statistics(joined(before, after, Boundary(policy)))
        detail[policy] = (found["sharpness"] * found["contrast"])[:6].mean()
    wanted = frame_statistics(film[CHUNK : CHUNK + 6])
    wanted = (wanted["sharpness"] * wanted["contrast"]).mean()
    assert 1.001 > detail["match"] / wanted > 1 - 0.07 * 3.5 / 6 - 0.01, "the mean gradient follows the ramp, no blur"
    assert detail["crossfade"] / wanted < 0.85


def test_a_crossfade_blends_the_held_frame_into_the_first_ones():
    before, after = np.full((4, 32, 32, 3), 80, np.uint8), np.full((9, 32, 32, 3), 94, np.uint8)
    faded = joined(before, after, Boundary("crossfade", 6))
    assert faded[:, 5, 5, 1].tolist() == [82, 84, 86, 88, 90, 92, 94, 94, 94]


def test_a_scene_cut_is_left_alone():
    """Between textures all cuts are found. Between drawn scenes of like colour and place, or of stripes and checks,
    which are alike from afar, a few of 200 are missed; `match` then changes little."""
    ones, others, touched, most = scenes(100, seed=1), scenes(100, seed=2), 0, 0
    for one, other in zip(ones, others):
        before, after = shapes.draw(one, 8), shapes.draw(other, 8)
        for policy in ("match", "crossfade"):
            out = joined(before, after, Boundary(policy))
            touched += not np.array_equal(out, after)
            if policy == "match":
                most = max(most, int(abs(out.astype(int) - after).max()))
    assert touched <= 5 and most <= 8
    pictures = [pan(texture(seed), 6) for seed in range(20, 29)]
    for before, after in zip(pictures, pictures[1:]):
        assert is_cut(Tail.of(before), after[0])
        for policy in ("match", "crossfade"):
            assert np.array_equal(joined(before, after, Boundary(policy)), after)


def test_fades_and_flat_pictures_are_cuts_or_left_alone():
    black, grey = (np.full((6, 32, 48, 3), level, np.uint8) for level in (0, 128))
    picture = pan(texture(0, (32, 48)), 6)
    for before, after in ((black, grey), (black, picture), (picture, black), (grey, picture)):
        assert is_cut(Tail.of(before), after[0])
        assert np.array_equal(joined(before, after), after)
    lighter = grey + np.uint8(10)
    assert not is_cut(Tail.of(grey), lighter[0])
    assert joined(grey, lighter)[:, 0, 0, 0].tolist() == [128, 130, 131, 133, 135, 136]
    assert np.array_equal(joined(grey, grey), grey)


def test_what_jumps_in_one_place_is_not_smeared():
    """A shape that turns up elsewhere while all gets darker: the rest is repaired. Its ghost, 150 levels strong if all
    cells were matched, is at most what a cell may depart from the others."""
    film = pan(texture(5, (128, 256)), 16, speed=0).astype(float) * 0.8 + 25
    red = np.array([200, 20, 20])
    film[:8, 40:64, 40:64], film[8:, 40:64, 90:114] = red, red
    before, wanted = to_uint8(film[:8]), to_uint8(film[8:])
    after = to_uint8(wanted.astype(float) - 8)
    repaired = joined(before, after)
    wrong = abs(repaired[0].astype(int) - wanted[0])
    assert wrong.mean() < 0.2 < 8 <= abs(after[0].astype(int) - wanted[0]).mean()
    assert wrong.max() <= boundary.LOCAL


@pytest.mark.parametrize("size", [(2, 2), (16, 16), (18, 50), (64, 40)])
def test_any_even_size(size):
    before = np.full((3, *size, 3), 100, np.uint8)
    assert joined(before, before + np.uint8(20))[0].tolist() == before[0].tolist()


def test_blocks_do_not_matter_and_are_not_changed():
    film = pan(texture(2))
    after = less_contrast(film[CHUNK:])
    kept = after.copy()
    for policy in ("match", "crossfade"):
        whole = joined(film[:CHUNK], after, Boundary(policy), blocks=())
        assert np.array_equal(whole, joined(film[:CHUNK], after, Boundary(policy)))
        assert np.array_equal(whole, joined(film[:CHUNK], after, Boundary(policy), blocks=[1] * 32))
    assert np.array_equal(after, kept)


def test_short_chunks_and_long_ramps():
    film = pan(texture(2), 4, speed=0)
    after = less_contrast(film[1:])
    for frames in (1, 2, 20):
        out = joined(film[:1], after, Boundary("match", frames), blocks=(1,))
        assert len(out) == 3 and abs(out[0].astype(int) - film[1]).mean() < 1
        assert np.array_equal(out[frames:], after[frames:])


def test_m16_drop_first_frame_counts_and_trims(tmp_path):
    """33, then 32 each; cut to the frame; blocks of one frame, as the VAE's first is, leave none empty."""
    clip, chunks = Clip.new(tmp_path / "run"), [pan(texture(i, (32, 48)), CHUNK) for i in range(3)]
    for chunk in chunks:
        clip = clip.append(np.split(chunk, [1, 17]), Boundary(drop_first_frame=True))
    assert [s.frames for s in clip.segments] == [33, 32, 32] and clip.num_frames == 97
    assert video.probe(join(clip, tmp_path / "out.mp4", num_frames=66)).frames == 66
    assert np.array_equal(joined(chunks[0], chunks[1], Boundary(drop_first_frame=True)), chunks[1][1:])
    with pytest.raises(ValueError, match="one besides a dropped one"):
        clip.append(chunks[0][:1], Boundary(drop_first_frame=True))


@pytest.mark.parametrize(("frames", "drop", "chunks"), [(33, True, 1), (34, True, 2), (65, True, 2), (66, True, 3)])
def test_chunks_of_a_length(frames, drop, chunks):
    assert Boundary(drop_first_frame=drop).chunks(frames, CHUNK) == chunks
    assert [Boundary().chunks(n, CHUNK) for n in (1, 33, 34, 132)] == [1, 1, 2, 4]


def test_bad_settings():
    for bad, says in ((("blend",), "'blend': wanted one of none, match"), (("match", 0), "at least 1, got 0")):
        with pytest.raises(ValueError, match=says):
            Boundary(*bad)
    with pytest.raises(ValueError, match="none left without its first"):
        Boundary(drop_first_frame=True).chunks(5, 1)


def test_a_clip_keeps_its_exact_last_frame_and_stays_a_value(tmp_path):
    film = shapes.draw(shapes.scene("white", "circle", "left", "striped"), 2 * CHUNK)
    start = Clip.new(tmp_path / "a").append(film[:CHUNK])
    assert np.array_equal(start.tail.frame, film[CHUNK - 1]) and not start.tail.frame.flags.writeable
    assert len({start, dataclasses.replace(start, tail=None)}) == 1
    after = film[CHUNK:] - np.uint8(20)
    again = pickle.loads(pickle.dumps(start))
    for clip in (start, again):
        clip = clip.append(after, MATCH)
        shown = video.read_frames(clip.segments[1].path)
        lack = film[CHUNK:].mean((1, 2, 3)) - shown.mean((1, 2, 3))
        assert abs(lack[:8] - [0, 3.3, 6.7, 10, 13.3, 16.7, 20, 20]).max() < 2  # H.264 rounds down
        assert np.array_equal(clip.tail.frame, after[-1])
    with pytest.raises(ValueError, match="the clip's frames are"):
        start.append(after[:, :32], MATCH)


def test_memory_stays_flat(tmp_path):
    """Twelve repaired chunks hold one block and one last frame, not the video."""
    film = pan(texture(0, (128, 192)), speed=0)
    chunks = [film[:CHUNK], less_contrast(film[:CHUNK])]
    clip = Clip.new(tmp_path)
    for warm in range(2):
        tracemalloc.start()
        for i in range(2 if not warm else 12):
            clip = clip.append((chunks[i % 2][j : j + 4] for j in range(0, CHUNK, 4)), MATCH)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < chunks[0].nbytes and held < 4 * film[0].nbytes


@pytest.fixture(scope="module")
def tiny():
    from helios_video.helios_core import load

    return load("helios-tiny", cache_folder=None)


def chunks_of(tiny, **length):
    events = tiny.generate("a red circle moving left", steps=(1, 1, 1), **length)
    return [(event, list(event.frames)) for event in events if hasattr(event, "frames")]


def test_frames_come_in_blocks_and_only_the_join_changes_them(tiny, tmp_path):
    chunks = chunks_of(tiny, frames=2 * CHUNK)
    assert [sum(map(len, blocks)) for _, blocks in chunks] == [33, 33] and [event.total for event, _ in chunks] == [
        2,
        2,
    ]
    boundary = Boundary("match", drop_first_frame=True)
    assert boundary.chunks(66, CHUNK) == 3, "two chunks would be a frame short of 66"
    assert len(chunks_of(tiny, chunks=3)) == 3
    first, second = (np.concatenate(blocks) for _, blocks in chunks)
    wanted = np.concatenate(list(follow([second[1:]], Tail.of(first), MATCH)))
    joined = np.concatenate(list(follow(chunks[1][1], Tail.of(first), boundary)))
    assert np.array_equal(joined, wanted)
