"""What a checkpoint says of itself: sizes, variant, schedule, defaults; read from its JSON files."""

from . import model
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
from .published import FromDict, read_json
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
    "check_size",
    "find_variant",
    "model",
    "read_folder",
    "read_json",
    "warn_size",
]
