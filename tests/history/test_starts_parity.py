"""Starting from an image or a video against diffusers, every variant over three chunks on the same draws.

Named: D3, D14.
"""

import dataclasses

import pytest
import torch
from diffusers.pipelines.helios import pipeline_helios_pyramid
from support.reference import HEIGHT, VARIANTS, WIDTH, build, compare, error, run_oracle, run_ours
from support.starting import CASES, Sequence, draw

# diffusers gives numpy torch scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

QUICK = dict(guidance_scale=1.0, pyramid_num_inference_steps_list=[1, 1, 1])
OURS = dict(steps=(1, 1, 1), boost_first_chunk=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Variant name -> (our model, diffusers pipeline), each made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = build(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


def for_diffusers(frames):
    """uint8 [f h w 3] -> [f 3 h w] in [0, 1]."""
    return torch.from_numpy(frames).movedim(-1, 1).float() / 255


def start_of_oracle(kind, frames):
    given = for_diffusers(frames)
    return {kind: given if kind == "image" else given[None], "generator": torch.Generator().manual_seed(3)}


IMAGE_DRAWS = ["image posterior", "still posterior", "image sigma", "image noise", "still sigma", "still noise"]
VIDEO_DRAWS = ["video anchor posterior", *["video posterior"] * 2, "video anchor sigma", "video anchor noise"]
VIDEO_DRAWS += ["video sigma", "video noise"] * 2


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", VARIANTS)
def test_parity_over_three_chunks(built, monkeypatch, name, kind):
    """Fake last latent, posterior samples, per-frame sigmas, anchor and window, all draws in the published order."""
    model, oracle = built(name)
    frames, noise = draw(CASES[kind]), Sequence()
    want, pixels = run_oracle(monkeypatch, oracle, 3, **VARIANTS[name].call, **start_of_oracle(kind, frames))
    history = model.history(WIDTH, HEIGHT, **{kind: frames}, noise=noise)
    steps, done = run_ours(model, 3, **VARIANTS[name].ours, history=history)
    assert noise.uses == (IMAGE_DRAWS if kind == "image" else VIDEO_DRAWS)
    print(name, kind, compare(model, want, pixels, steps, done))


class Keyed:
    """Draws of one torch generator in diffusers' order for a video of `blocks` chunks, given out by use and block."""

    def __init__(self, blocks, seed=3):
        take, g, z = {}, torch.Generator().manual_seed(seed), (1, 16, 9, HEIGHT // 8, WIDTH // 8)
        order = range(blocks)[::-1]
        take["video anchor posterior", 0] = torch.randn(1, 16, 1, *z[3:], generator=g)
        take |= {("video posterior", k): torch.randn(z, generator=g) for k in order}
        take["video anchor sigma", 0] = torch.rand(1, generator=g)
        take["video anchor noise", 0] = torch.randn(1, 16, 1, *z[3:], generator=g)
        for k in order:
            take["video sigma", k], take["video noise", k] = torch.rand(9, generator=g), torch.randn(z, generator=g)
        self.take = take

    def normal(self, shape, *, use, chunk):
        assert tuple(shape) == tuple(self.take[use, chunk].shape)
        return self.take[use, chunk].numpy()

    uniform = normal


@pytest.mark.parametrize("frames", [33, 140])
def test_parity_of_short_and_long_videos(built, monkeypatch, frames):
    """One block and exact zeros before it; four blocks, of which the window needs three and the rest is not encoded."""
    model, oracle = built("distilled")
    given, calls = draw(frames), []
    want, pixels = run_oracle(monkeypatch, oracle, 1, **QUICK, **start_of_oracle("video", given))
    real = model.backend.encode
    monkeypatch.setattr(model.backend, "encode", lambda vae, x: calls.append(len(x)) or real(vae, x))
    history = model.history(WIDTH, HEIGHT, video=given, noise=Keyed(frames // 33))
    assert calls == [1, 33] if frames == 33 else calls == [1, 33, 33, 33]
    if frames == 33:
        assert (history.window[:, :, :10] == 0).all() and (history.window[:, :, 10:] != 0).all()
    compare(model, want, pixels, *run_ours(model, 1, history=history, **OURS))


class Sizes(list):
    """history_sizes that diffusers cannot lengthen after summing them, so that its keep_first_frame=False runs."""

    def __setitem__(self, *_):
        pass


@pytest.mark.parametrize("kind", ["nothing", *CASES])
def test_d3_without_a_first_frame(built, monkeypatch, kind):
    """keep_first_frame off over three chunks, each way to start. diffusers itself fails here; its slip is mended."""
    model, oracle = built("distilled")
    frames = draw(CASES.get(kind, 1))
    start = {} if kind == "nothing" else start_of_oracle(kind, frames)
    monkeypatch.setattr(pipeline_helios_pyramid, "sorted", lambda sizes, reverse: Sizes(sizes), raising=False)
    off = dict(keep_first_frame=False, history_sizes=[16, 2, 2])
    want, pixels = run_oracle(monkeypatch, oracle, 3, **QUICK, **start, **off)
    given = {} if kind == "nothing" else {kind: frames, "noise": Keyed(2) if kind == "video" else Still()}
    history = model.history(WIDTH, HEIGHT, keep_first_frame=False, **given)
    assert history.anchor is None and history.window.shape[2] == 20
    compare(model, want, pixels, *run_ours(model, 3, history=history, **OURS))


class Still(Sequence):
    """diffusers draws for the image's own latent, too; without an anchor ours has no use for that."""

    def normal(self, shape, *, use, **_):
        if use == "still posterior":
            torch.randn(1, 16, 1, *shape[3:], generator=self.generator)
        if use == "still noise":
            return self.kept.numpy()
        return super().normal(shape, use=use)

    def uniform(self, shape, *, use, **_):
        torch.rand(1, generator=self.generator)
        torch.randn(1, 16, 1, HEIGHT // 8, WIDTH // 8, generator=self.generator)
        sigma = torch.rand(tuple(shape), generator=self.generator)
        self.kept = torch.randn(1, 16, 1, HEIGHT // 8, WIDTH // 8, generator=self.generator)
        return sigma.numpy()


@pytest.mark.parametrize("kind", ["nothing", "image"])
def test_d14_the_second_chunk_becomes_the_anchor(built, monkeypatch, kind):
    """skip_first_chunk: the third chunk differs from the one with the old anchor; nothing is dropped."""
    model, oracle = built("distilled")
    start = {} if kind == "nothing" else start_of_oracle(kind, draw(1))
    want, pixels = run_oracle(monkeypatch, oracle, 3, **QUICK, **start, is_skip_first_chunk=True)
    given = {} if kind == "nothing" else {"image": draw(1), "noise": Sequence()}
    history = model.history(WIDTH, HEIGHT, skip_first_chunk=True, **given)
    steps, done = run_ours(model, 3, history=history, **OURS)
    compare(model, want, pixels, steps, done)
    history = dataclasses.replace(history, skip_first_chunk=False)
    plain = run_ours(model, 3, history=history, **OURS)[1]
    assert torch.equal(plain[1].latent, done[1].latent) and error(plain[2].latent, done[2].latent) > 1e-3
