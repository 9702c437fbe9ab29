"""What a checkpoint says of itself: sizes, variant, schedule, defaults; read from its JSON files."""

from . import limits, model
from .limits import check_number, check_whole
from .model import (
    GENERATION,
    INDEX,
    SCHEDULER,
    ModelConfig,
    ScheduleConfig,
    TransformerConfig,
    VAEConfig,
    build,
    check_size,
    read_folder,
    warn_size,
)
from .published import FromDict, check_value, read_json
from .variants import GUIDANCE, SHIFT_TOKENS, SOLVERS, find_variant

__all__ = [
    "FromDict",
    "GENERATION",
    "GUIDANCE",
    "INDEX",
    "ModelConfig",
    "SCHEDULER",
    "SHIFT_TOKENS",
    "SOLVERS",
    "ScheduleConfig",
    "TransformerConfig",
    "VAEConfig",
    "build",
    "check_number",
    "check_size",
    "check_value",
    "check_whole",
    "find_variant",
    "limits",
    "model",
    "read_folder",
    "read_json",
    "warn_size",
]
