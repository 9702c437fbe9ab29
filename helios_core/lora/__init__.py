"""LoRA files: names in every dialect, what of a file fits a model, and the changes it makes."""

from .changes import Changes, arrange, gain_mode, locate, read_changes, read_companion, refuse_quantised, stacked
from .edits import Edit
from .files import COMPANION, MODES, LoraFile, read_lora
from .names import key_forms, summary, usual_keys
from .strength import Strength, check_strength, parse_blocks, read_strength

__all__ = [
    "COMPANION",
    "Changes",
    "Edit",
    "LoraFile",
    "MODES",
    "Strength",
    "arrange",
    "check_strength",
    "gain_mode",
    "key_forms",
    "locate",
    "parse_blocks",
    "read_changes",
    "read_lora",
    "read_companion",
    "read_strength",
    "refuse_quantised",
    "stacked",
    "summary",
    "usual_keys",
]
