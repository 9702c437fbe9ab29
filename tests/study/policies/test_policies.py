"""The study of policies: its parts, its measures on drawn faults, and the smallest run of it all."""

import csv
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core import load, pyramid
from helios_video.helios_core.cli import main
from helios_video.helios_core.commands.study import choose
from helios_video.helios_core.drawn import bench
from helios_video.helios_core.drawn.per_video import PerVideoDrift, one, together
from helios_video.helios_core.drawn.scenes import RADIUS, draw
from helios_video.helios_core.history.drift import STRENGTHS, DriftPolicy
from helios_video.helios_core.history.window import MOMENTS
from helios_video.helios_core.join.boundary import Boundary
from helios_video.helios_core.pipeline import Helios
from helios_video.helios_core.steps import schedule
from helios_video.helios_core.study import experiment
from helios_video.helios_core.study.experiment import PolicySizes
from helios_video.helios_core.study.policies import joints, latents, renders, report, study
from helios_video.helios_core.training.objective import flow_pair
from helios_video.helios_core.training.tiny.teacher import SCHEDULE

SMALL = PolicySizes(prompts=2, seeds=2, chunks=2, joint_chunks=2, looks=2)


def test_every_part_holds_together():
    """Baselines and defaults are arms; what is named exists; the arms cover every policy, and today's defaults."""
    for part in report.PARTS:
        names = [f.name for f in part.figures]
        assert {part.baseline, part.default or part.baseline} <= set(part.arms)
        assert part.decides in names and len(set(names)) == len(names)
        assert set(part.pictured) <= {f.name for f in part.figures if f.goal}
        assert next(f for f in part.figures if f.name == part.decides).goal
    assert [p.arms[p.default] for p in (report.DRIFT, report.JOINTS)] == [DriftPolicy(), Boundary()]
    assert {policy.name for policy in report.DRIFT.arms.values()} == set(STRENGTHS)
    assert {b.policy for b in report.JOINTS.arms.values()} == {"none", "match", "crossfade"}
    assert choose(report.PARTS, ["drift"]) == (report.DRIFT,)


def test_looks_go_from_the_first_chunk_to_the_last():
    assert PolicySizes().looked_at() == [0, 6, 12, 18, 25, 31, 37, 43]
    assert PolicySizes(chunks=2).looked_at() == [0, 1]
    with pytest.raises(ValueError, match="at least 1 prompt"):
        PolicySizes(prompts=0)


def test_a_true_video_has_no_errors_and_a_faulty_one_its_own():
    scene = bench.held_out_scenes(1)[0]
    scene = replace(scene, things=scene.things[:1], starts=((32.0, 32.0),), radius=sum(RADIUS) / 2)
    frames = draw(scene, 33)
    found = renders.truth(renders.read_chunk(frames, scene, 0), scene)
    assert found["accuracy"] == 1 and max(found[f"{n}_error"] for n in ("colour", "size", "contrast")) < 0.02
    middle = frames.mean((1, 2), keepdims=True)
    faded = np.rint(middle + 0.8 * (frames - middle)).clip(0, 255).astype(np.uint8)
    found = renders.truth(renders.read_chunk(faded, scene, 0), scene)
    assert found["contrast_error"] == pytest.approx(0.2, abs=0.02)


def test_drawn_joints_reward_repair_and_punish_blur():
    """Known truth: `match` mends contrast and light and touches nothing else; a cross-fade blurs what was right."""
    found = joints.measure_drawn(None, report.DRAWN.arms, [None] * 6, 0, SMALL)
    mean = {
        arm: {k: np.mean([r["figures"][k] for r in rows]) for k in rows[0]["figures"]} for arm, rows in found.items()
    }
    assert mean["none"]["clean"] == mean["match"]["clean"] == joints.MOST
    assert (
        mean["match"]["contrast"] > mean["none"]["contrast"] + 1 and mean["match"]["light"] > mean["none"]["light"] + 1
    )
    assert mean["crossfade"]["clean"] < 45


def test_joints_of_chunks_with_a_fault():
    """Every second chunk is darker: the jump is found, `match` takes it away, a cross-fade loses edges."""
    scene = next(s for s in bench.held_out_scenes(40) if s.motion == "left" and s.background == "plain")
    videos = {arm: joints.Joined(boundary) for arm, boundary in joints.ARMS.items()}
    for k in range(4):
        frames = draw(scene, 33, first=33 * k)
        for video in videos.values():
            video.add(np.maximum(frames.astype(int) - 10 * (k % 2), 0).astype(np.uint8))
    found = {arm: video.figures() for arm, video in videos.items()}
    assert found["none"]["luma_excess"] > 0.05 and found["match"]["luma_excess"] < 0.01
    assert found["none"]["edges"] == 1 and found["none"]["changed"] == 0
    assert abs(found["match"]["edges"] - 1) < 0.02 and found["crossfade"]["edges"] < 0.97
    assert found["drop first frame"]["luma_jump"] > 0.05


@pytest.fixture(scope="module")
def tiny():
    return load("helios-tiny", weight_dtype="fp32", cache_folder=None)


FAST = dict(steps=(1, 1, 1), cfg=1.0, boost_first_chunk=False)


def test_videos_of_a_batch_are_corrected_each_on_its_own(tiny):
    """As generated alone, with its own verdicts, to what rounding in a batch leaves."""
    scenes, policy = bench.held_out_scenes(2), DriftPolicy("anchor", 1.0, 0.05, 0.05)
    memory = PerVideoDrift(tiny, policy, 5)
    batch = [z for _, _, z in bench.render(tiny, scenes, 5, 3, looks=(), remember=memory, **FAST)]
    for i, scene in enumerate(scenes):
        events = tiny.generate(scene.caption(), frames=99, seed=5 + i, drift=policy, width=64, height=64, **FAST)
        alone = [event for event in events if hasattr(event, "frames")]
        for k in range(3):
            torch.testing.assert_close(batch[k][i : i + 1], alone[k].latent, rtol=0, atol=2e-2)
            assert memory.found[k][i] == (": drift" in alone[k].drift)
    assert any(any(row) for row in memory.found)


def test_a_batch_comes_apart_and_together_again(tiny):
    history = tiny.history(64, 64, batch=2).append(torch.randn(2, 16, 9, 8, 8))
    rows = [one(history, i) for i in range(2)]
    back = together(rows)
    assert torch.equal(back.window, history.window) and torch.equal(back.anchor, history.anchor)
    assert back.chunk == 1 and all(getattr(back, name) is None for name in MOMENTS)


def test_a_stage_starts_where_training_starts_it():
    """The baseline is flow_pair's own start to the bit; another policy differs by its coarse half alone."""
    clean, noise = torch.randn(1, 16, 9, 8, 8), torch.randn(1, 16, 9, 8, 8)
    for stage in schedule.stages(SCHEDULE)[1:]:
        arms = {arm: report.STAGES.arms[arm] for arm in ("content, area", "noise, area")}
        starts, end = latents.start_points(stage, clean, noise, 2, arms)
        want = flow_pair(stage, clean, noise, 2)
        assert torch.equal(starts["content, area"], want[0]) and torch.equal(end, want[1])
        coarse = pyramid.upsample(pyramid.downsample(clean, (2,) * (3 - stage.index), "content"))
        gain = 2 ** (3 - stage.index) - 1
        difference = starts["noise, area"] - starts["content, area"]
        torch.testing.assert_close(difference, (1 - stage.start) * gain * coarse, rtol=1e-4, atol=1e-5)


def test_only_what_is_looked_at_is_decoded_and_starts_are_used(tiny):
    scenes = bench.held_out_scenes(1)
    shown = [len(frames) for _, frames, _ in bench.render(tiny, scenes, 0, 3, looks=[0, 2], **FAST)]
    assert shown == [1, 0, 1]
    (plain,) = (z for _, _, z in bench.render(tiny, scenes, 0, 1, looks=(), **FAST))
    start = torch.zeros(tiny.coarsest(tiny.history(64, 64)))
    (other,) = (z for _, _, z in bench.render(tiny, scenes, 0, 1, looks=(), start=lambda history: start, **FAST))
    assert not torch.equal(plain, other)


def fewer(part):
    """Doing nothing, the default, and one more."""
    return replace(part, arms={a: part.arms[a] for a in {part.baseline, part.default, [*part.arms][-1]} - {""}})


def test_the_whole_study_in_its_smallest_size(tiny, tmp_path):
    """One prompt, one seed, two chunks, few arms of every part: figures, plots, page; and a rerun renders nothing."""
    config = replace(tiny.config, defaults=replace(tiny.config.defaults, steps=(1, 1, 1), cfg=1.0))
    tiny = Helios(tiny.checkpoint._replace(config=config), tiny.parts, tiny.embeddings)
    few = tuple(map(fewer, report.PARTS))
    sizes = PolicySizes(prompts=1, seeds=1, chunks=2, joint_chunks=2, looks=2)
    told = []
    run = dict(page=tmp_path / "docs" / "policies.md", command="again", parts=few, tell=told.append)
    (tmp_path / "docs").mkdir()
    found = study(tiny, sizes, tmp_path, **run)
    assert len(told) == len(list(experiment.jobs(few, sizes)))
    values = [f["mean"] for f in report.comparisons(found)]
    assert len(values) > 100 and all(v is not None and np.isfinite(v) for v in values)
    page = run["page"].read_text(encoding="utf-8")
    assert page.count("![") == len(few) and str(tmp_path) not in page
    pictures = sorted((tmp_path / "docs" / "policies").glob("*.png"))
    assert len(pictures) == len(few) and sum(p.stat().st_size for p in pictures) < 400_000
    with (tmp_path / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(values)
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(found))
    told.clear()
    assert study(tiny, sizes, tmp_path, **run) == found and not told


def test_the_command_line_refuses_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words, says in (
        (["--part", "speed"], "--part 'speed': wanted one of noise"),
        (["--prompts", "0"], "--prompts must be at least 1"),
        (["--page", "page.html"], "ends in .md"),
    ):
        assert main(["study", "policies", *words]) == 2
        assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ray_is_for_policies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "ve", "--ray"]) == 2 and "study ve is one after another" in capsys.readouterr().err
    assert main(["study", "policies", "--actors", "2"]) == 2 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_actors_measure_what_one_process_does(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(pack.__file__).parents[1]), *sys.path]))
    line = ["study", "policies", "--quick", "--part", "joints", "--prompts", "1", "--seeds", "2", "--chunks", "2"]
    assert main([*line, "-o", str(tmp_path / "one")]) == 0
    assert main([*line, "-o", str(tmp_path / "two"), "--ray", "--actors", "2"]) == 0
    files = sorted(file.name for file in (tmp_path / "one" / "measured").iterdir())
    assert len(files) == 2
    for name in files:
        one, two = (json.loads((tmp_path / n / "measured" / name).read_text()) for n in ("one", "two"))
        assert one["rows"] == two["rows"] and one["made_of"] == two["made_of"]
