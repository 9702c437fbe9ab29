"""Libraries that read files: whatever they raise becomes one ValueError that names the file."""

from __future__ import annotations

PASSED = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)


class reading:
    """`with reading(where, wanted)`: an error of any library inside becomes a ValueError: "where is no wanted: ...".

    The pack's own ValueErrors, want of memory and Ctrl-C pass.
    """

    def __init__(self, where, wanted: str):
        self.where, self.wanted = where, wanted

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error: BaseException | None, trace) -> None:
        if error is None or type(error) is ValueError or isinstance(error, PASSED):
            return
        if isinstance(error, OSError) and error.strerror:
            raise ValueError(f"{self.where} cannot be read: {error.strerror}") from error
        said = next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
        raise ValueError(f"{self.where} is no {self.wanted} that can be read ({said}); download it again") from error
