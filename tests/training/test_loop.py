"""The training loop: rates, optimisers, stopping and going on."""

import numpy as np
import pytest
import torch
from helios_video.helios_core.training import loop
from helios_video.helios_core.training.tiny.teacher import Tiny
from PIL import Image


def test_rates_warm_up_stay_and_fall():
    recipe = loop.Recipe(steps=1000, warmup=100, decay=0.3)
    assert [round(recipe.rate(step), 2) for step in (0, 49, 100, 500, 729, 999)] == [0.01, 0.5, 1, 1, 1, 0.02]
    assert 0.4 < recipe.rate(865) < 0.6


def test_muon_gets_the_matrices_of_blocks_and_nothing_else():
    model = Tiny()
    adamw, muon = loop.optimisers(model, loop.Recipe(steps=1, muon=1e-3))
    inside = {id(p) for n, p in model.transformer.blocks.named_parameters() if p.ndim == 2}
    assert {id(p) for p in muon.param_groups[0]["params"]} >= inside
    assert all(p.ndim == 2 for p in muon.param_groups[0]["params"])
    counts = [sum(p.numel() for p in o.param_groups[0]["params"]) for o in (adamw, muon)]
    assert sum(counts) == sum(p.numel() for p in model.parameters())
    assert len(loop.optimisers(model, loop.Recipe(steps=1))) == 1


def test_a_stopped_training_resumes_where_it_was(tmp_path):
    def run(folder, stops):
        model = torch.nn.Linear(3, 1)
        torch.nn.init.ones_(model.weight)
        torch.nn.init.zeros_(model.bias)

        def loss(step):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            return {"loss": (model(x) - x.sum(1, keepdim=True) * 2).square().mean()}

        for last in stops:
            recipe = loop.Recipe(steps=40, lr=0.05, warmup=2, ema=0.5, save_every=20, log_every=10)
            loop.fit(model, Interrupted(loss, last), recipe, folder / "x.pt")
        return model.weight.detach().clone()

    class Interrupted:
        def __init__(self, loss, last):
            self.loss, self.last = loss, last

        def __call__(self, step):
            if step == self.last:
                raise KeyboardInterrupt
            return self.loss(step)

    whole = run(tmp_path / "a", [99])
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", [33])
    torch.testing.assert_close(run(tmp_path / "b", [99]), whole)
    rows = (tmp_path / "b" / "x.csv").read_text().splitlines()
    assert rows[0] == "step,seconds,loss" and [row.split(",")[0] for row in rows[1:]] == ["10", "20", "30", "40"]
    with Image.open(tmp_path / "b" / "x.png") as picture:
        assert (np.asarray(picture.convert("RGB")) == (0, 114, 178)).all(-1).sum() > 200  # the curve's colour


def test_a_checkpoint_of_more_steps_is_not_the_result_of_fewer(tmp_path):
    def run(steps):
        model = torch.nn.Linear(1, 1)
        recipe = loop.Recipe(steps=steps, warmup=1, save_every=1, log_every=1)
        loop.fit(model, lambda step: {"loss": model(torch.ones(1, 1)).square().mean()}, recipe, tmp_path / "x.pt")

    run(3)
    with pytest.raises(ValueError, match="trained for 3 steps, more than the 2 asked for"):
        run(2)
    run(4)
