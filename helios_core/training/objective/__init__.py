"""What a Helios transformer is trained on: the pyramid flow objective, few-step regression, and pasts with errors."""

from .draws import MAX_HISTORY_NOISE, WINDOW, SeededDraws, chunks_and_pasts
from .few_steps import few_step_loss, stage_points
from .flow import FlowPoint, flow_loss, flow_pair, flow_point

__all__ = [
    "SeededDraws",
    "FlowPoint",
    "MAX_HISTORY_NOISE",
    "WINDOW",
    "chunks_and_pasts",
    "few_step_loss",
    "flow_loss",
    "flow_pair",
    "flow_point",
    "stage_points",
]
