"""The bench's measures on drawn videos with drawn faults, and the report it writes."""

import csv
import json

import numpy as np
import pytest
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands.bench import parse_setting
from helios_video.helios_core.drawn import against_scene, bench
from helios_video.helios_core.drawn import scenes as shapes
from helios_video.helios_core.drawn.reading import object_mask
from helios_video.helios_core.measure.joints import frame_statistics, joints

SCENE = shapes.scene("red", "circle", "left", "striped", radius=11.5)


def video(chunks: int, scene=SCENE) -> np.ndarray:
    return shapes.draw(scene, 33 * chunks)


def scaled_contrast(frames: np.ndarray, gain: float) -> np.ndarray:
    middle = frames.mean()
    return np.clip(middle + (frames - middle) * gain, 0, 255).round().astype(np.uint8)


def test_an_untouched_joint_is_no_worse_than_the_inside():
    found = joints(frame_statistics(video(3)))
    for name in ("luma", "contrast", "sharpness", "difference"):
        assert found[name]["jump"] <= 3 * found[name]["inside"] + 1e-3, name


def test_a_drawn_contrast_drop_is_measured_at_the_joint():
    frames = video(3)
    frames[33:66] = scaled_contrast(frames[33:66], 0.93)
    found = joints(frame_statistics(frames))
    assert found["contrast"]["jump"] == pytest.approx(0.07, abs=0.012)
    assert found["contrast"]["inside"] < 0.01


def test_a_drawn_jump_of_brightness_is_measured_at_the_joint():
    frames = video(3)
    frames[33:66] = frames[33:66] // 2
    found = joints(frame_statistics(frames))
    assert found["luma"]["jump"] > 0.45 and found["luma"]["inside"] < 0.02
    assert found["difference"]["jump"] > 5 * found["difference"]["inside"]


def test_a_blurred_chunk_loses_sharpness_and_not_brightness():
    frames = video(2)
    blurred = sum(np.roll(frames[33:].astype(float), (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    frames[33:] = blurred.round()
    found = joints(frame_statistics(frames))
    assert found["sharpness"]["jump"] > 0.1 and found["luma"]["jump"] < 0.02


def test_statistics_of_chunks_are_those_of_the_whole():
    frames = video(2)
    parts = [frame_statistics(frames[:33]), frame_statistics(frames[33:], frames[32])]
    for name, whole in frame_statistics(frames).items():
        np.testing.assert_allclose(np.concatenate([p[name] for p in parts]), whole)


def test_one_chunk_has_no_joint():
    with pytest.raises(ValueError, match="no joint"):
        joints(frame_statistics(video(1)))


def test_a_true_chunk_shows_no_drift():
    for chunk in (0, 3):
        found = against_scene.read_chunk(video(4)[33 * chunk : 33 * chunk + 33], SCENE, chunk)
        assert all(getattr(found, name) for name in bench.ATTRIBUTES)
        assert found.colour_error < 0.01
        assert found.size == pytest.approx(1, abs=0.03)


def test_drawn_drift_of_colour_and_size_is_measured():
    orange = shapes.scene("red", "circle", "left", "striped", radius=16.0)
    frames = shapes.draw(orange, 33)
    found = against_scene.read_chunk(frames, SCENE, 0)
    assert found.size == pytest.approx((16 / 11.5) ** 2, rel=0.05)
    frames = video(1)
    red = object_mask(frames / 255, "striped")
    frames[red, 1] = np.minimum(frames[red, 1] + 51, 255)
    assert against_scene.read_chunk(frames, SCENE, 0).colour_error == pytest.approx(0.2, abs=0.02)


def test_a_lost_object_is_the_largest_colour_error():
    empty = np.repeat((shapes.backdrop("striped")[None] * 255).round().astype(np.uint8), 33, axis=0)
    found = against_scene.read_chunk(empty, SCENE, 0)
    assert found.colour_error == 1 and found.size == 0 and not found.count


def test_latent_moments_are_kept():
    latent = np.random.default_rng(0).normal(2, 3, (16, 9, 8, 8))
    found = against_scene.read_chunk(video(1), SCENE, 0, latent)
    np.testing.assert_allclose(found.latent_mean, latent.mean((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(found.latent_std, latent.std((1, 2, 3)), rtol=1e-4)


class Drawer:
    """A stand-in for a checkpoint that draws what the prompt says, chunk by chunk, or `shift` chunks of another."""

    def __init__(self, scenes, wrong=False):
        self.scenes, self.wrong = scenes, wrong

    def history(self, width, height, batch):
        return History(0)

    def text(self, prompts):
        return [next(s for s in self.scenes if s.caption() == p) for p in prompts]

    def sample(self, history, positive, *, seed, **options):
        rows = [shapes.draw(scene, 33, first=33 * history.chunk) for scene in positive]
        yield type("Step", (), {"latent": Latents([255 - r if self.wrong else r for r in rows])})

    def decode(self, latent):
        return latent[0]


class History:
    def __init__(self, chunk):
        self.chunk = chunk

    def append(self, latent):
        return History(self.chunk + 1)


class Latents(list):
    def __iter__(self):
        return (Row(x) for x in list.__iter__(self))


class Row:
    def __init__(self, frames):
        self.frames = frames

    def __getitem__(self, _):
        return [self.frames]

    def __array__(self, dtype=None, copy=None):
        return np.zeros((16, 9, 8, 8), dtype)


@pytest.fixture(scope="module")
def results():
    scenes = bench.held_out_scenes(3)
    found = {}
    for name, wrong in (("true", False), ("negative", True)):
        videos, fps = bench.run(Drawer(scenes, wrong), scenes, [0], 2, batch=2)
        found[name] = (videos, bench.summarise(videos, fps))
    return found


def test_the_bench_tells_true_videos_from_wrong_ones(results):
    good, bad = (results[name][1] for name in ("true", "negative"))
    assert good["merit"] == 1.0 and bad["merit"] < 0.7
    assert max(good["colour_error"]) < 0.01 < min(bad["colour_error"])
    assert good["joints"]["difference"]["jump"] <= 2 * good["joints"]["difference"]["inside"]


def test_the_report_holds_every_number_and_a_sheet(results, tmp_path):
    bench.write(tmp_path, results)
    report = json.loads((tmp_path / "results.json").read_text())
    assert report["true"]["merit"] == 1.0 and len(report["true"]["latent_std"]) == 2
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 2 and {r["setting"] for r in rows} == {"true", "negative"}
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[0] == "| setting | colour | shape | motion | background | count | merit | frames/s |"
    assert table[2].startswith("| true | 100 / 100 | 100 / 100 | 100 / 100 | 100 / 100 | 100 / 100 | 100.0 |")
    from PIL import Image

    with Image.open(tmp_path / "sheet.png") as page:
        assert page.width > 1000 and page.height > 600


def test_settings_are_read_and_refused_by_name():
    assert parse_setting("default", 3) == {}
    read = parse_setting("steps=2,2,2 solver=dmd cfg=1.5 shift_tokens=after_upsample boost_first_chunk=false", 3)
    assert read["steps"] == (2, 2, 2) and read["cfg"] == 1.5 and read["shift_tokens"] == "after upsample"
    assert read["boost_first_chunk"] is False and read["solver"] == "dmd"
    for wrong in ("steps=2,2", "speed=3", "boost_first_chunk=maybe"):
        with pytest.raises(ValueError, match=wrong.split("=")[0]):
            parse_setting(wrong, 3)


def test_the_command_hands_settings_and_drift_policy_on(monkeypatch, tmp_path, results):
    seen = []

    def grow(helios, scenes, seeds, chunks, *, batch, drift, **options):
        seen.append((helios.plan(helios.history(64, 64), **options), drift))
        yield bench.Grown(results["true"][0], 1.0)

    monkeypatch.setattr(bench, "grow", grow)
    settings = ["--setting", "default", "--setting", "boost_first_chunk=true", "--setting", "steps=4,4,4"]
    assert main(["bench", "tiny", "-o", str(tmp_path), "--anti-drift", "anchor:1", *settings]) == 0
    assert [plan.total for plan, _ in seen] == [6, 12, 12]
    assert [plan.boost for plan, _ in seen] == [False, True, False]
    assert all((drift.name, drift.strength) == ("anchor", 1.0) for _, drift in seen)
