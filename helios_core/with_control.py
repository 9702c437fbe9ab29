"""A checkpoint with a control: another handle on the same parts, whose chunks see a second video."""

from __future__ import annotations

from .control import POLICIES, Control, find_adapter, from_latents, read_adapter
from .pipeline import Helios
from .with_loras import with_loras


def with_control(
    helios: Helios, adapter, latents, *, strength: float = 1.0, first: int = 0, last: int | None = None,
    policy: str = POLICIES[0], adapt=None,
) -> Helios:  # fmt: skip
    """A handle that is controlled beside what controls `helios` already; `helios` stays as it is. See `Control`.

    adapter: a file, or a name as `find_adapter` takes it. latents: normalised [1|b c 9k h w], as `encode_clip` makes
    them. adapt(parts, path, strength): the parts with the adapter's LoRA, where a program around has a way of its own.
    ValueError for a file or latents that do not fit.
    """
    file = read_adapter(find_adapter(adapter), helios.config.transformer)

    def changed(parts):
        return (adapt or applied)(parts, file.path, float(strength))

    def applied(parts, path, strength):
        return with_loras(helios.with_parts(parts), [(path, strength)]).parts

    control = Control(
        file,
        from_latents(helios, latents),
        helios.config.defaults.chunk_latent_frames,
        strength=float(strength),
        first=first,
        last=last,
        policy=policy,
        adapt=changed if file.lora else None,
    )
    return helios.controlled((*helios.controls, control))
