"""LoRA files: names in every dialect, what of a file fits a model, and the changes it makes."""

from .changes import Changes, arrange, gain_mode, locate, read_changes, read_companion, refuse_quantised, stacked
from .files import COMPANION, MODES, LoraFile, check_strength, read_lora
from .names import key_forms

__all__ = [
    "COMPANION",
    "Changes",
    "LoraFile",
    "MODES",
    "arrange",
    "check_strength",
    "gain_mode",
    "key_forms",
    "locate",
    "read_changes",
    "read_lora",
    "read_companion",
    "refuse_quantised",
    "stacked",
]
