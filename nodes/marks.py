"""What core nodes write on a CONDITIONING or a LATENT and Helios cannot do: refused by name, not ignored."""

from __future__ import annotations

MARKS = {  # key -> (what it is, what has no effect, the node that writes it)
    "area": ("an area", (None,), "Conditioning (Set Area)"),
    "mask": ("a mask", (None,), "Conditioning (Set Mask)"),
    "strength": ("a strength", (None, 1.0), "Conditioning (Set Area)"),
    "mask_strength": ("a mask's strength", (None, 1.0), "Conditioning (Set Mask)"),
    "start_percent": ("a time range", (None, 0.0), "ConditioningSetTimestepRange"),
    "end_percent": ("a time range", (None, 1.0), "ConditioningSetTimestepRange"),
    "control": ("a ControlNet", (None,), "Apply ControlNet"),
    "gligen": ("a GLIGEN box", (None,), "GLIGENTextBoxApply"),
    "hooks": ("hooks", (None,), "a node of hooks"),
    "concat_latent_image": ("a first picture", (None,), "WanImageToVideo or the like; HistoryMemory takes it"),
    "reference_latents": ("reference latents", (None,), "ReferenceLatent"),
    "clip_vision_output": ("a CLIP vision output", (None,), "a node of CLIP vision"),
    "guidance": ("a guidance", (None,), "FluxGuidance; use the sampler's cfg"),
}  # fmt: skip


def check_conditioning(value, name: str) -> None:
    """ValueError where a CONDITIONING says something that would be ignored. `name` is the input."""
    for _, more in value or ():
        for key, (what, harmless, node) in MARKS.items():
            if key in more and not any(more[key] is fine or more[key] == fine for fine in harmless):
                raise ValueError(
                    f"{name}: the CONDITIONING carries {what} ({key}, from {node}), which Helios does not know and "
                    "would ignore. Wire the prompt past that node."
                )


def check_latent(value, name: str) -> None:
    """ValueError where a LATENT carries a noise mask, which would be ignored."""
    if isinstance(value, dict) and value.get("noise_mask") is not None:
        raise ValueError(
            f"{name}: the LATENT carries a noise mask (from Set Latent Noise Mask or VAE Encode for Inpainting), which "
            "Helios does not know and would ignore. Wire the latent past that node."
        )
