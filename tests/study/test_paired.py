"""Studies of paired figures: statistics and verdicts on made-up figures of known truth, resuming, the page."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from helios_video.helios_core.study import experiment, paired
from helios_video.helios_core.study.experiment import PolicySizes, StudyPart
from helios_video.helios_core.study.paired import Figure, compare, conclude
from helios_video.helios_core.study.policies.report import write_page

SMALL = PolicySizes(prompts=2, seeds=2, chunks=2, joint_chunks=2, looks=2)
HIGH, LOW = Figure("a", "a title", "high"), Figure("b", "b title", "low")


def figures(seeds=3, prompts=12, seed=0):
    """What prompts and seeds do to every arm alike: far more than the policies will."""
    rng = np.random.default_rng(seed)
    return 5 + 3 * rng.standard_normal((1, prompts)) + rng.standard_normal((seeds, 1))


def test_a_paired_difference_and_its_spread():
    base = np.array([[1.0, 2, 3], [5, 6, 7]])
    found = compare(base + [[1, 2, 3], [3, 4, 5]], base, "high")
    assert found["mean"] == 7 and found["difference"] == 3 and found["by_seed"] == [2, 4]
    assert found["spread"] == pytest.approx(np.std([4, 10], ddof=1))
    assert found["error"] == pytest.approx(np.std([2, 3, 4], ddof=1) / np.sqrt(3))
    assert found["verdict"] == "better" and compare(base, base + 1, "low")["verdict"] == "better"
    assert compare(base, base + 1, "high")["verdict"] == "worse"
    with pytest.raises(ValueError, match="wanted two arrays"):
        compare(base, base[:1], "high")


def test_pairing_finds_what_the_spread_of_videos_would_hide():
    """A gain of .3 where videos differ by 3: found every time; without pairing it is a tenth of the spread."""
    for seed in range(20):
        base, rng = figures(seed=seed), np.random.default_rng((seed, 1))
        arm = base + 0.3 + 0.1 * rng.standard_normal(base.shape)
        assert compare(arm, base, "high")["verdict"] == "better"
        assert compare(arm, base, "low")["verdict"] == "worse"


def test_without_an_effect_few_are_called_better():
    """And as many worse; the page states the share, which is that of the same rule on normal draws."""
    verdicts = []
    for seed in range(600):
        base, rng = figures(seed=seed), np.random.default_rng((seed, 2))
        verdicts.append(compare(base + rng.standard_normal(base.shape), base, "high")["verdict"])
    share = verdicts.count("better") / 600
    assert 0.005 < share < 0.05 and verdicts.count("worse") / 600 < 0.05
    assert paired.chance(3, 12) == pytest.approx(share, abs=0.02)


def test_one_seed_that_disagrees_or_one_prompt_that_does_it_all_is_not_enough():
    base = figures()
    gain = np.full_like(base, 1.0)
    gain[2] = -0.01
    assert compare(base + gain, base, "high")["verdict"] == "unclear"
    lone = np.zeros_like(base)
    lone[:, 0] = 5
    assert compare(base + lone, base, "high")["verdict"] == "unclear"
    for few in (base[:1], base[:, :1]):
        assert compare(few + 1, few, "high")["verdict"] == "unclear", "of one seed or one prompt nothing is known"


def test_equal_figures_are_the_same_and_nan_is_unclear():
    base = figures()
    assert compare(base, base, "high")["verdict"] == "same"
    assert compare(base * (1 + 1e-12), base, "high")["verdict"] == "same"
    assert compare(base, base + 1, "")["verdict"] == ""
    assert compare(base + 0.01, base, "high", 0.02)["verdict"] == "same"
    assert compare(base + 0.03, base, "high", 0.02)["verdict"] == "better"
    base[0, 0] = np.nan
    assert compare(base + 1, base, "high")["verdict"] == "unclear"


def drawn(**gains):
    """arm -> figures, from gains in a and b; a little noise on top of each but nothing."""
    base, rng = figures(), np.random.default_rng(5)
    return {
        arm: {f: base + gain + (0.01 * rng.standard_normal(base.shape) if gain else 0) for f, gain in zip("ab", pair)}
        for arm, pair in gains.items()
    }


def test_what_earns_its_place_and_which_default_follows():
    values = drawn(off=(0, 0), good=(1, 0), best=(2, -1), mixed=(3, 1), harm=(-1, 0))
    found = conclude(values, (HIGH, LOW), "a", "off", "off")
    assert found["earning"] == ["best", "good"] and found["result"] == "best"
    assert found["arms"]["mixed"]["b"]["verdict"] == "worse" and found["arms"]["best"]["b"]["verdict"] == "better"
    nothing = conclude(drawn(off=(0, 0), mixed=(3, 1), harm=(-1, 0)), (HIGH, LOW), "a", "off", "off")
    assert nothing["earning"] == [] and nothing["result"] == "off"


def test_a_default_stays_unless_another_beats_it():
    """Not for being ahead by noise, nor for being better elsewhere than in the deciding figure."""
    values = drawn(off=(0, 0), today=(1, 0), other=(1, 0))
    values["ahead"] = {"a": values["today"]["a"] + 0.02 * np.random.default_rng(1).standard_normal((3, 12)), "b": 0}
    values["ahead"]["b"] = values["today"]["b"]
    values["elsewhere"] = {"a": values["today"]["a"], "b": values["today"]["b"] - 1}
    found = conclude(values, (HIGH, LOW), "a", "off", "today")
    assert found["result"] == "today" and {"today", "other", "elsewhere"} <= set(found["earning"])
    swing = 1 + 1.33 * (-1.0) ** np.arange(12)  # 2.5 standard errors: better, and not enough to change a default
    values["lucky"] = {"a": values["today"]["a"] + swing, "b": values["today"]["b"]}
    assert compare(values["lucky"]["a"], values["today"]["a"], "high")["verdict"] == "better"
    assert conclude(values, (HIGH, LOW), "a", "off", "today")["result"] == "today"
    values["beats"] = {"a": values["today"]["a"] + 1, "b": values["today"]["b"]}
    assert conclude(values, (HIGH, LOW), "a", "off", "today")["result"] == "beats"


class Counted:
    """A part whose figures are made up, and which notes when it is measured."""

    def __init__(self, one_by_one=False, gain=1.0):
        self.calls = []
        arms = {"off": 0.0, "on:1": gain}
        text = "What is asked."
        self.part = StudyPart(
            "made", "Made up", text, arms, "off", "off", (HIGH, LOW), "a", self.measure, one_by_one, ("a",), {"a": "a"}
        )

    def measure(self, helios, arms, scenes, seed, sizes):
        self.calls.append((tuple(arms), seed))
        rows = {}
        for arm, gain in arms.items():
            values = [float(i + seed / 1000 + gain * (1 + i / 100)) for i in range(len(scenes))]
            rows[arm] = [{"figures": {"a": v, "b": np.nan}, "curves": {"a": [v, v + 1]}} for v in values]
        return rows


@pytest.fixture
def helios(tmp_path):
    """Something with weights to take a fingerprint of."""
    file = tmp_path / "weights"
    file.write_bytes(b"one")
    source = type("Source", (), {"files": [file]})
    return SimpleNamespace(checkpoint=SimpleNamespace(sources={"transformer": source}), file=file)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_rerun_measures_only_what_is_missing(helios, tmp_path, one_by_one):
    counted = Counted(one_by_one)
    first = experiment.measure(helios, [counted.part], SMALL, tmp_path, lambda line: None)
    assert len(counted.calls) == (4 if one_by_one else 2) and {seed for _, seed in counted.calls} == {0, 1000}
    again = Counted(one_by_one)
    assert experiment.measure(helios, [again.part], SMALL, tmp_path, print) == first and not again.calls
    name = "made-on-1-1.json" if one_by_one else "made-1.json"
    (tmp_path / "measured" / name).write_text("{ broken")
    assert experiment.measure(helios, [again.part], SMALL, tmp_path, print) == first
    assert again.calls == [(("on:1",) if one_by_one else ("off", "on:1"), 1000)]


def test_other_weights_or_sizes_are_measured_anew(helios, tmp_path):
    counted = Counted()
    for change in (lambda: None, lambda: helios.file.write_bytes(b"two")):
        change()
        experiment.measure(helios, [counted.part], SMALL, tmp_path, lambda line: None)
    assert len(counted.calls) == 4
    experiment.measure(helios, [counted.part], replace(SMALL, prompts=3), tmp_path, lambda line: None)
    assert len(counted.calls) == 6


def test_an_interrupted_run_keeps_what_was_done(helios, tmp_path):
    class Stopped(Counted):
        def measure(self, *args):
            if len(self.calls) == 3:
                raise KeyboardInterrupt
            return super().measure(*args)

    with pytest.raises(KeyboardInterrupt):
        experiment.measure(helios, [Stopped(True).part], SMALL, tmp_path, lambda line: None)
    rest = Counted(True)
    experiment.measure(helios, [rest.part], SMALL, tmp_path, lambda line: None)
    assert rest.calls == [(("on:1",), 1000)]


def made_up_report(helios, tmp_path, gain):
    counted = Counted(gain=gain)
    sizes = replace(SMALL, seeds=3, prompts=4)
    found = experiment.measure(helios, [counted.part], sizes, tmp_path, lambda line: None)
    about = {"model": "m", "weights": "w", "steps": [2], "solver": "dmd", "cfg": 1.0, "minutes": 1.0, "command": "c"}
    about |= {"chance": 0.02, "rule": paired.RULE, "sizes": vars(sizes)}
    report = experiment.plain({"about": about, "parts": experiment.results([counted.part], found)})
    write_page(tmp_path / "page.md", [counted.part], report)
    return (tmp_path / "page.md").read_text(encoding="utf-8")


def test_the_page_says_what_was_found(helios, tmp_path):
    page = made_up_report(helios, tmp_path, 1.0)
    assert "| Made up | `off` | `on:1` | `off` | `on:1` (a change) |" in page
    assert "- `on:1` earns its place: better in a title." in page and "![Made up](page/made.png)" in page
    assert "| `on:1` | **3.515** (+1.015 \u00b1 0.006) | - (" in page
    assert (tmp_path / "page" / "made.png").stat().st_size < 30_000


@pytest.mark.parametrize("gain,says", [(0.0, "**Nothing helps**"), (-1.0, "- `on:1`: worse in a title.")])
def test_the_page_says_where_nothing_helps(helios, tmp_path, gain, says):
    page = made_up_report(helios, tmp_path, gain)
    assert says in page and "**Nothing helps**: no arm is better than `off`" in page
    assert "| Made up | `off` | nothing | `off` | `off` |" in page and "- **Default: `off`**, as it is" in page
