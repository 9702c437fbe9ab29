"""A checkpoint with LoRAs: another handle on the same parts, of which the transformer alone differs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .config import TransformerConfig
from .disk import fingerprint
from .lora import COMPANION, MODES, LoraFile, Strength, read_changes, read_companion, read_lora, read_strength
from .pipeline import Helios


@dataclass(frozen=True, eq=False)
class Loras:
    """What changes a transformer. files: with their strengths. companion: the transformer_partial.pth of a training.

    mode apply: computed beside the base's weights, which are kept once for all handles. merge: the changed weights are
    computed into copies; where the base's transformer is in use too, that is up to a second model's memory.
    """

    config: TransformerConfig
    files: tuple[tuple[LoraFile, Strength], ...]
    mode: str = "apply"
    companion: Path | None = None

    @property
    def merged(self) -> bool:
        """Whether they are added into copies of the weights, rather than applied beside them."""
        return self.mode == "merge"

    @cached_property
    def identity(self) -> tuple:
        """What tells these from others: the files as they were when first asked, strengths, mode and companion."""
        files = tuple((fingerprint(file.path), strength) for file, strength in self.files)
        return *files, self.mode, self.companion and fingerprint(self.companion)

    def adapt(self, transformer, backend, *, shared: bool):
        """The transformer with them. shared: somebody else has it too, so what changes is copied."""
        changes = read_changes(self.files, self.companion, self.config, backend.shapes(self.config))
        return backend.adapt(transformer, changes, merge=self.merged, shared=shared)

    @property
    def report(self) -> str:
        """A line per file, and one for a companion file that was perhaps forgotten."""
        lines = [file.report(strength) for file, strength in self.files]
        beside = {file.path.with_name(COMPANION) for file, _ in self.files}
        if self.companion is not None:
            lines.append(f"{self.companion.name}: in full")
        elif any(path.is_file() for path in beside):
            lines.append(f"A {COMPANION} lies beside it; if it belongs to it, give it as the companion")
        return "\n".join(lines)


def with_loras(helios: Helios, loras, *, mode: str = "auto", companion=None) -> Helios:
    """A handle on the same parts with more LoRAs on the transformer; `helios` stays as it is. See `Loras`.

    loras: (file, strength) pairs, or with the factors of blocks as a third, such as "0-9=0.5" (`read_strength`). mode:
    apply, merge or auto (as before, else apply). Reads the files' headers only, and the whole of the companion, to
    check it. ValueError for a file that does not fit, and for a second companion.
    """
    if mode not in MODES:
        raise ValueError(f"LoRA mode {mode!r}: wanted one of {', '.join(MODES)}")
    config = helios.config.transformer
    before, shapes = helios.parts.loras or Loras(config, ()), helios.backend.shapes(config)
    files = read_files(loras, config, shapes)
    if companion is not None:
        read_companion(companion := Path(companion), config, shapes)
        if before.companion is not None:
            raise ValueError(f"two companion files, {before.companion} and {companion}; a model can have one")
    made = Loras(
        config,
        (*before.files, *files),
        mode=before.mode if mode == "auto" else mode,
        companion=companion or before.companion,
    )
    return helios.with_parts(helios.parts.with_loras(made))


def read_files(loras, config: TransformerConfig, shapes) -> tuple[tuple[LoraFile, Strength], ...]:
    """The files' headers and what is asked of them. loras: as `with_loras` takes them. ValueError for what is wrong."""
    return tuple((read_lora(path, shapes), read_strength(*how, layers=config.num_layers)) for path, *how in loras)
