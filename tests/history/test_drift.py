"""Anti-drift: moments, the verdict on drawn drift, the four policies, what is refused."""

import numpy as np
import pytest
import torch
from helios_video.helios_core.history import drift
from helios_video.helios_core.history.drift import DriftPolicy
from helios_video.helios_core.history.window import MOMENTS, History
from helios_video.helios_core.noise import Noise, batch_noise

C, T, H, W = 4, 9, 8, 12


def empty(b=1, sizes=(16, 2, 1)):
    return History(torch.zeros(b, C, sum(sizes), H, W), sizes=sizes)


def drawn(index, mean=0.0, std=1.0, b=1):
    """A chunk of exactly these moments per element and channel, unbiased; numbers or one per channel."""
    z = torch.from_numpy(Noise(9).normal((b, C, T, H, W), chunk=index)).double()
    z = (z - z.mean((2, 3, 4), keepdim=True)) / z.std((2, 3, 4), keepdim=True)
    mean, std = (torch.as_tensor(v, dtype=torch.float64).expand(C).view(1, C, 1, 1, 1) for v in (mean, std))
    return (z * std + mean).float()


def correct(history, name="off", seed=3, noise=None, **options):
    noise = noise or batch_noise(seed, history.shape[0])
    return drift.correct(
        history, DriftPolicy(name, **options), chunk_frames=T, noise=noise, array=lambda z: torch.from_numpy(z)
    )


def run(chunks, *policy, **options):
    """What is found in each of the chunks of one history."""
    history, found = empty(chunks[0].shape[0]), []
    for chunk in chunks:
        found.append(correct(history.append(chunk), *policy, **options))
        history = found[-1].history
    return found


class Official:
    """Written from the description of the published helper: statistics in torch, momentum .9, thresholds .15."""

    def __init__(self):
        self.mean = self.var = None

    def drifts(self, z):
        mean, var = z.mean(dim=(2, 3, 4)), z.var(dim=(2, 3, 4))
        first = self.mean is None
        self.mean = mean.clone() if first else 0.9 * self.mean + 0.1 * mean
        self.var = var.clone() if first else 0.9 * self.var + 0.1 * var
        far = [torch.linalg.vector_norm(a - b, dim=-1).mean().item() for a, b in ((mean, self.mean), (var, self.var))]
        return far, far[0] > 0.15 and far[1] > 0.15


def test_moments_are_the_mean_and_the_unbiased_variance():
    z = torch.from_numpy(Noise(1).normal((2, C, T, H, W), chunk=0)) * 3 + 5
    want = torch.stack([z.mean((2, 3, 4)), z.var((2, 3, 4))], dim=-1)
    assert torch.allclose(drift.measure(z), want, rtol=1e-5)
    assert np.allclose(drift.measure(z.numpy()), want, rtol=1e-5), "any arrays will do"
    few = torch.tensor([1.0, 2.0, 6.0]).view(1, 1, 3, 1, 1)
    assert drift.measure(few).tolist() == [[[3.0, 7.0]]]


def test_distances_of_a_known_step():
    """Means and variances step by .5 and .44 in each of 4 channels: sqrt(4) times .9 of it once the average moved."""
    _, second = run([drawn(0), drawn(1, mean=0.5, std=1.2)])
    assert second.drift.mean == pytest.approx(0.9 * 2 * 0.5, rel=1e-5)
    assert second.drift.variance == pytest.approx(0.9 * 2 * 0.44, rel=1e-4)
    assert second.drift.first_mean == pytest.approx(2 * 0.5, rel=1e-5) and second.drift.found


def test_m19_moments_are_updated_before_drift_is_tested():
    """A step of .16 in one channel is above .15 as it comes, and below once a tenth of it is in the average."""
    chunks = [drawn(0), drawn(1, mean=[0.16, 0, 0, 0], std=2)]
    assert [found.drift.found for found in run(chunks)] == [False, False]
    chunks[1] = drawn(1, mean=[0.17, 0, 0, 0], std=2)
    assert [found.drift.found for found in run(chunks)] == [False, True]


@pytest.mark.parametrize("mean,std,found", [(0, 1, False), (0.5, 1, False), (0, 2, False), (0.5, 2, True)])
def test_both_means_and_variances_must_drift(mean, std, found):
    assert run([drawn(0), drawn(1, mean, std)])[1].drift.found is found


def test_the_first_chunk_never_counts_as_drift():
    for policy in drift.POLICIES:
        (first,) = run([drawn(0, 40, 9)], policy, mean_threshold=0, variance_threshold=0)
        assert first.drift == (0, 0, 0, 0, False) and torch.equal(first.chunk, drawn(0, 40, 9))


def test_a_slow_creep_is_drift_from_the_first_chunk():
    """The average creeps along and finds nothing; anchor compares with the first chunk and does."""
    chunks = [drawn(k, mean=0.008 * k, std=1 + 0.008 * k) for k in range(30)]
    assert not any(found.drift.found for found in run(chunks))
    verdicts = [found.drift.found for found in run(chunks, "anchor")]
    start = verdicts.index(True)
    assert 5 < start < 15 and all(verdicts[start:])


@pytest.mark.parametrize("b", [1, 2])
def test_verdicts_and_corruption_are_those_of_the_published_helper(b):
    """A random walk of means and contrasts; the history, its draws injected, is the helper's in every chunk."""
    walk = np.random.default_rng(0).normal(0, 0.12, (2, 12, C)).cumsum(1)
    draws = [Noise(5).normal((b, C, T, H, W), chunk=k, use="test") for k in range(12)]

    class Recorded:
        def normal(self, shape, *, chunk, use):
            assert shape == (b, C, T, H, W) and use == "drift"
            return draws[chunk]

    official, verdicts = Official(), []
    chunks = [drawn(k, walk[0, k], np.exp(walk[1, k]), b) for k in range(12)]
    for k, found in enumerate(run(chunks, "corrupt", noise=Recorded())):
        far, drifts = official.drifts(chunks[k])
        assert (found.drift.mean, found.drift.variance) == pytest.approx(far, rel=1e-4, abs=1e-6)
        assert found.drift.found == drifts
        want = chunks[k] + 0.1 * torch.from_numpy(draws[k]) if drifts else chunks[k]
        assert torch.equal(found.chunk, want) and torch.equal(found.history.window[:, :, -T:], want)
        verdicts.append(drifts)
    assert 3 < sum(verdicts) < 12


def test_corruption_is_seeded_and_of_its_chunk():
    """Each chunk and seed has its own noise; in a batch every element draws what it would alone."""
    chunks = [drawn(0, b=2), drawn(1, 1, 2, b=2), drawn(1, -3, 0.5, b=2)]
    noise = [(f.chunk - c) / 0.1 for f, c in zip(run(chunks, "corrupt", seed=3), chunks, strict=True)]
    assert (noise[0] == 0).all() and not torch.allclose(noise[1], noise[2], atol=0.1)
    assert abs(float(noise[1].std()) - 1) < 0.03 and abs(float(noise[1].mean())) < 0.03
    other = run([c[1:] for c in chunks], "corrupt", seed=4)
    assert all(torch.equal(a.chunk[1:], b.chunk) for a, b in zip(run(chunks, "corrupt", seed=3), other, strict=True))
    assert not torch.equal(run(chunks, "corrupt", seed=5)[1].chunk, run(chunks, "corrupt", seed=3)[1].chunk)


@pytest.mark.parametrize("policy,goal", [("renormalise", (0.08, 1.3)), ("anchor", (0, 1))])
def test_renormalise_and_anchor_move_means_and_contrasts(policy, goal):
    """Half of the way, or all of it, to the average (.9 of the first and .1 of the second chunk) or the first chunk."""
    chunks = [drawn(0), drawn(1, 0.8, 2)]
    for strength in (0.0, 0.25, 1.0):
        found = run(chunks, policy, strength=strength)[1]
        part = strength or 0.5
        std = 2 + part * (goal[1] ** 0.5 - 2)
        assert torch.allclose(found.chunk.mean((2, 3, 4)), torch.tensor(0.8 + part * (goal[0] - 0.8)), atol=1e-5)
        assert torch.allclose(found.chunk.std((2, 3, 4)), torch.tensor(std), rtol=1e-5)
        shape = (found.chunk - found.chunk.mean((2, 3, 4), keepdim=True)) / std
        assert torch.allclose(shape, (chunks[1] - 0.8) / 2, atol=1e-5), "the picture itself is the same"


def test_a_constant_channel_only_moves_its_mean():
    """No division by zero, and rounding is not blown up to contrast."""
    chunks = [drawn(0), drawn(1, 0.8, 2)]
    chunks[1][:, 0], chunks[1][:, 1] = 0.1, 0
    found = run(chunks, "anchor", strength=1.0)[1]
    assert torch.isfinite(found.chunk).all() and found.drift.found
    assert (found.chunk[:, :2].abs() < 1e-5).all()
    assert torch.allclose(found.chunk[:, 2:].std((3, 4)).mean(), torch.tensor(1.0), atol=0.1)


@pytest.mark.parametrize("policy", drift.POLICIES)
def test_only_the_newest_chunk_of_the_history_changes(policy):
    """The anchor, older frames and the inputs stay; so does a chunk in which no drift is found."""
    first = correct(empty().append(drawn(0)), policy).history
    before = first.append(drawn(1, 1, 2))
    kept = before.window.clone()
    after = correct(before, policy).history
    assert torch.equal(before.window, kept) and before.newest_moments is None
    assert torch.equal(after.window[:, :, :-T], before.window[:, :, :-T]) and after.anchor is before.anchor
    assert torch.equal(after.window, before.window) is (policy == "off")
    assert (after.chunk, after.sizes, after.window.shape) == (2, before.sizes, before.window.shape)
    calm = correct(first.append(drawn(1)), policy)
    assert torch.equal(calm.chunk, drawn(1)) and not calm.drift.found


def test_moments_are_those_of_the_chunks_as_sampled():
    """Corrections do not reach the averages: the same under every policy."""
    chunks = [drawn(0), drawn(1, 1, 2), drawn(2, -1, 0.5), drawn(3, 0, 3)]
    ends = [run(chunks, policy)[-1] for policy in drift.POLICIES]
    assert all(torch.equal(end.history.moments, ends[0].history.moments) for end in ends)
    assert all(end.drift[:4] == ends[0].drift[:4] for end in ends)
    want = [1.0, 4.0, 0.25, 9.0]
    average = want[0]
    for value in want[1:]:
        average = 0.9 * average + 0.1 * value
    assert torch.allclose(ends[0].history.moments[..., 1], torch.tensor(average), rtol=1e-5)


def test_a_chunk_is_measured_once_however_often_it_is_corrected():
    """The averages move once and the distances stay those of the sampled chunk; corrections come on top of another."""
    history = run([drawn(0)])[0].history.append(drawn(1, 1, 2))
    once = correct(history, "anchor", strength=1.0)
    twice = correct(once.history, "anchor", strength=1.0)
    assert all(torch.equal(getattr(once.history, n), getattr(twice.history, n)) for n in MOMENTS)
    assert once.drift == twice.drift and torch.allclose(once.chunk, twice.chunk, atol=1e-5)
    half = correct(correct(history, "anchor", strength=0.5).history, "anchor", strength=0.5)
    assert torch.allclose(half.chunk.mean((2, 3, 4)), torch.tensor(0.25), atol=1e-5)
    both = correct(once.history, "corrupt", seed=8).chunk
    noise = torch.from_numpy(batch_noise(8, 1).normal(both.shape, chunk=1, use="drift"))
    assert torch.allclose(both, once.chunk + 0.1 * noise, atol=1e-6)
    assert correct(once.history.append(drawn(2))).history.newest_moments is not once.history.newest_moments


def test_two_histories_side_by_side_do_not_disturb_each_other():
    one, other = [drawn(k, 0.4 * k, 1 + k) for k in range(4)], [drawn(9 + k, 5, 0.3) for k in range(4)]
    alone = [run(one, "renormalise"), run(other, "renormalise")]
    histories, mixed = [empty(), empty()], [[], []]
    for k in range(4):
        for i, chunks in enumerate((one, other)):
            found = correct(histories[i].append(chunks[k]), "renormalise")
            histories[i] = found.history
            mixed[i].append(found)
    for a, b in zip((*alone[0], *alone[1]), (*mixed[0], *mixed[1]), strict=True):
        assert a.drift == b.drift and torch.equal(a.history.window, b.history.window)


def test_a_history_becomes_a_batch_with_its_moments():
    history = run([drawn(0), drawn(1, 1, 2)])[1].history
    batch = history.repeat(2)
    for name in MOMENTS:
        assert torch.equal(getattr(batch, name), torch.cat([getattr(history, name)] * 2)), name
    assert correct(batch).drift == pytest.approx(correct(history).drift)


def test_numpy_and_float32_stay_what_they_are():
    history = History(np.zeros((1, C, 19, H, W), np.float32)).append(drawn(0).numpy())
    for k in (1, 2):
        policy = DriftPolicy("renormalise")
        found = drift.correct(history, policy, chunk_frames=T, noise=batch_noise(0, 1), array=np.asarray)
        history = found.history.append(drawn(k, k, 1 + k).numpy())
    assert isinstance(history.window, np.ndarray) and history.window.dtype == history.moments.dtype == np.float32
    assert torch.allclose(torch.from_numpy(history.moments), run([drawn(0), drawn(1, 1, 2)])[1].history.moments)


@pytest.mark.parametrize("policy", drift.POLICIES)
def test_mlx_arrays(policy):
    """The same chunks and verdicts on MLX; what comes out is MLX's."""
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
    chunks = [drawn(0), drawn(1, 1, 2), drawn(2, -1, 0.5)]
    chunks[2][:, 0] = 0.3
    history = History(mx.zeros((1, C, 19, H, W)))
    for chunk, want in zip(chunks, run(chunks, policy), strict=True):
        found = drift.correct(
            history.append(mx.array(chunk.numpy())),
            DriftPolicy(policy),
            chunk_frames=T,
            noise=batch_noise(3, 1),
            array=mx.array,
        )
        history = found.history
        assert isinstance(history.window, mx.array) and history.moments.dtype == mx.float32
        assert np.allclose(np.array(found.chunk), want.chunk, atol=1e-5)
        assert found.drift == pytest.approx(want.drift, abs=1e-5)


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(name="on"), "policy 'on': wanted one of off, corrupt, renormalise, anchor"),
        (dict(strength=-0.1), "strength -0.1"),
        (dict(strength=1.5), "strength 1.5: wanted 0 .the policy's own. or up to 1"),
        (dict(strength=float("nan")), "strength nan"),
        (dict(momentum=1.0), "momentum 1.0"),
        (dict(mean_threshold=-1), "mean_threshold -1: wanted a distance from 0"),
        (dict(variance_threshold=float("nan")), "variance_threshold nan"),
    ],
)
def test_bad_policies_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        DriftPolicy(**options)


def test_policies_as_text():
    assert drift.parse_policy("anchor") == DriftPolicy("anchor")
    assert drift.parse_policy("corrupt:0.2") == DriftPolicy("corrupt", 0.2)
    for text in ("", "corrupt:", "corrupt:x", "corrupt:0", "corrupt:-1", "corrupt:2", "none", "anchor:0.5:1"):
        with pytest.raises(ValueError, match="anti-drift"):
            drift.parse_policy(text)


def test_histories_that_cannot_be_measured_are_refused():
    with pytest.raises(ValueError, match="no chunk yet"):
        correct(empty())
    with pytest.raises(ValueError, match="remembers 7 latent frames, a chunk has 9; give it sizes of 9 frames or more"):
        correct(empty(sizes=(4, 2, 1)).append(drawn(0)))
    for value in (float("nan"), float("inf")):
        broken = drawn(0)
        broken[0, 0, 0, 0, 0] = value
        for history in (empty(), run([drawn(1)])[0].history):
            with pytest.raises(ValueError, match=f"chunk {history.chunk + 1} holds NaN or infinity"):
                correct(history.append(broken))


def test_the_report_says_what_was_found_and_done():
    first, second, third = run([drawn(0), drawn(1, 1, 2), drawn(2)], "corrupt", strength=0.2)
    start = "chunk 1: no drift, history left as it is. Distance of means and variances to the running ones 0.000 0.000"
    assert first.report.startswith(start)
    assert second.report.startswith("chunk 2: drift, history corrected (corrupt, strength 0.2). Distance of means")
    assert third.report.endswith("; thresholds 0.15 0.15")
    assert "drift, history left as it is" in run([drawn(0), drawn(1, 1, 2)])[1].report
