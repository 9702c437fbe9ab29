"""A sampler's parts in numpy: a schedule, a start, draws and a made-up velocity."""

import numpy as np
from helios_video.helios_core.config.model import ScheduleConfig
from helios_video.helios_core.steps.denoise import Plan

CONFIG = ScheduleConfig(scheduler_type="dmd", use_dynamic_shifting=True, time_shift_type="linear")
COARSE = (1, 2, 3, 4, 6)


def white(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def draw(stage, shape):
    return white(shape, 100 + stage)


def wave(x, t):
    """A made-up velocity that depends on latents and timestep."""
    return np.sin(3 * x) + x * np.float32(t / 1000)


def plan(steps=(2, 2, 2), solver="dmd", config=CONFIG, **options):
    return Plan(config, steps, solver, **options)
