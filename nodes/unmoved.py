"""What ComfyUI's Select Device nodes find of a part that is not theirs to place: they pass it on and log why."""

from __future__ import annotations


class Unmoved:
    """In a ModelPatcher's place, which is what those nodes retarget. what: the part, in words."""

    load_device = offload_device = None

    def __init__(self, what: str):
        self.what = what

    @property
    def model(self) -> Unmoved:
        """Itself: such a node notes on it where it was."""
        return self

    def is_dynamic(self) -> bool:
        """That it has another form, which `clone` then refuses."""
        return True

    def clone(self, disable_dynamic=False) -> Unmoved:
        """Itself. RuntimeError where it would have to stay on one device."""
        if disable_dynamic:
            self.deepclone_multigpu()
        return self

    def deepclone_multigpu(self, new_load_device=None) -> Unmoved:
        """Always RuntimeError, which those nodes take for an answer."""
        raise RuntimeError(f"{self.what} stays on the device that ComfyUI keeps for such parts")
