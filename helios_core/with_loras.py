"""A checkpoint with LoRAs: a second handle on the same components, of which the transformer alone differs."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from .devices import weakly
from .lora import COMPANION, MODES, LoraFile, check_strength, read_changes, read_companion, read_lora
from .pipeline import Helios

OWN = ("transformer", "vae", "text_encoder", "embeddings")  # parts that are not copied from the base


class Adapted(Helios):
    """A Helios whose transformer has LoRAs. The base is shared and never changed; `report` says what the files change.

    apply: the LoRAs are computed beside the base's weights, which are kept once for all handles. merge: the changed
    weights are computed into copies; where the base's transformer is in use too, that is up to a second model's memory.
    """

    def __init__(self, base: Helios, loras: list[tuple[LoraFile, float]], *, mode: str, companion: Path | None):
        self.__dict__.update({name: value for name, value in base.__dict__.items() if name not in OWN})
        self.base, self.loras, self.mode, self.companion = base, loras, mode, companion
        base.handles.add(self)  # so that the base can make room for what it loads

    @property
    def device(self):
        return self.base.device

    @property
    def offload_mode(self) -> str:
        return self.base.offload_mode

    @property
    def vae(self):
        return self.base.vae

    @property
    def text_encoder(self):
        return self.base.text_encoder

    @property
    def embeddings(self):
        return self.base.embeddings

    @cached_property
    def transformer(self):
        config = self.base.config.transformer
        changes = read_changes(self.loras, self.companion, config, self.backend.shapes(config))
        merge = self.mode == "merge"
        shared = not merge or "transformer" in self.base.__dict__
        model = self.base.transformer if shared else Helios.transformer.func(self.base)
        model = self.backend.adapt(model, changes, merge=merge, shared=shared)
        model.on_block = weakly(self._on_block)
        return model

    def release(self, *names: str) -> None:
        """Of the base and of all its handles, which hold the same tensors."""
        self.base.release(*names)

    @property
    def report(self) -> str:
        """A line per file, and one for a companion file that was perhaps forgotten."""
        lines = [file.report(strength) for file, strength in self.loras]
        beside = {file.path.with_name(COMPANION) for file, _ in self.loras}
        if self.companion is not None:
            lines.append(f"{self.companion.name}: in full")
        elif any(path.is_file() for path in beside):
            lines.append(f"A {COMPANION} lies beside it; if it belongs to it, give it as the companion")
        return "\n".join(lines)


def with_loras(helios: Helios, loras, *, mode: str = "auto", companion=None) -> Adapted:
    """A handle on the same components with LoRAs on the transformer; `helios` stays as it is.

    loras: (file, strength) pairs. mode: apply (beside the weights), merge (into copies) or auto (apply). companion: the
    transformer_partial.pth of an official training. Reads the files' headers only, and the whole of the companion, to
    check it. ValueError for a file that does not fit.
    """
    if mode not in MODES:
        raise ValueError(f"LoRA mode {mode!r}: wanted one of {', '.join(MODES)}")
    base, before = (helios.base, helios.loras) if isinstance(helios, Adapted) else (helios, [])
    shapes = helios.backend.shapes(base.config.transformer)
    files = [(read_lora(path, shapes), check_strength(strength)) for path, strength in loras]
    if companion is not None:
        read_companion(companion := Path(companion), base.config.transformer, shapes)
        if isinstance(helios, Adapted) and helios.companion is not None:
            raise ValueError(f"two companion files, {helios.companion} and {companion}; a model can have one")
    elif isinstance(helios, Adapted):
        companion = helios.companion
    if mode == "auto":
        mode = helios.mode if isinstance(helios, Adapted) else "apply"
    return Adapted(base, [*before, *files], mode=mode, companion=companion)
