"""The objectives for any schedule: Base's one stage, Mid's shift, few steps."""

from __future__ import annotations

import pytest
import torch
from helios_video.helios_core.config import ScheduleConfig
from helios_video.helios_core.steps import Plan, schedule
from helios_video.helios_core.training.objective import SeededDraws, few_step_loss, flow_loss, flow_point

BASE = ScheduleConfig(stages=1, stage_range=(0, 1), use_dynamic_shifting=True)
MID = ScheduleConfig(use_dynamic_shifting=True)


def test_base_flows_from_noise_to_the_clean_latent_at_the_timesteps_of_inference():
    clean, noise, time = torch.randn(3, 16, 9, 8, 8), torch.randn(3, 16, 9, 8, 8), torch.tensor([1.0, 0.5, 0.0])
    x, t, target = flow_point(BASE, 0, clean, noise, time)
    torch.testing.assert_close(target, noise - (1 - 1e-3) * 0 - clean, atol=2e-3, rtol=0)
    torch.testing.assert_close(x[2], clean[2])
    assert t.tolist() == pytest.approx([999.0, 499.5, 0.0])
    steps = schedule.steps(BASE, 0, 10, tokens=8640, solver="unipc", clamp=schedule.TRAINING_CLAMP)
    sigma = torch.tensor([step.sigma for step in steps])
    assert torch.tensor([step.t for step in steps]) == pytest.approx(1000 * sigma)


def test_a_shift_moves_times_towards_noise_as_in_sampling():
    clean, noise = torch.zeros(1, 16, 9, 48, 80), torch.ones(1, 16, 9, 48, 80)
    plain, shifted = (flow_point(MID, 2, clean, noise, torch.tensor([0.5]), shift=s) for s in (False, True))
    row = schedule.stages(MID)[2]
    factor = schedule.dynamic_shift(8640, MID, clamp=schedule.TRAINING_CLAMP)
    sigma = float(schedule.shift_sigma(0.4995, factor))
    assert float(shifted.t) == pytest.approx(row.t_min + sigma * (row.t_max - row.t_min))
    assert float(shifted.t) > float(plain.t)
    torch.testing.assert_close(shifted.target, plain.target)


def test_a_model_that_knows_the_velocity_has_no_loss():
    clean = torch.randn(2, 16, 9, 8, 8)
    for stage in range(3):
        noise, time = SeededDraws(0).randn(*clean.shape), (torch.arange(2) + 0.5) / 2
        point = flow_point(MID, stage, clean, noise, time)
        assert float(flow_loss(lambda x, t, p=point: p.target, MID, stage, clean, SeededDraws(0))) < 1e-10


def test_few_steps_regress_every_estimate_on_the_end():
    plan = Plan(ScheduleConfig(scheduler_type="dmd"), (2, 2, 2), "dmd")
    start, end, sigmas = torch.randn(2, 16, 9, 4, 4), torch.randn(2, 16, 9, 4, 4), []

    def exact(x, t):
        sigma = plan.stage_steps(0, start.shape)[len(sigmas)].sigma
        sigmas.append(sigma)
        return (x - end) / sigma

    assert float(few_step_loss(exact, plan, 0, start, end)) < 1e-8
    assert len(sigmas) == 2
