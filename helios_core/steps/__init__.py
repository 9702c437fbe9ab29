"""One chunk from noise to latents: the schedule of sigmas, the solvers, guidance, and the loop over them."""

from . import schedule
from .denoise import FiniteCheck, Plan, SampleStep, denoise, plan_chunk
from .guidance import CFG
from .schedule import parse_steps

__all__ = ["CFG", "FiniteCheck", "Plan", "SampleStep", "denoise", "parse_steps", "plan_chunk", "schedule"]
