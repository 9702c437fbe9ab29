"""What the `helios` command does, one module per subcommand."""

import argparse
import os

from ..config import check_whole
from ..devices import choose

MOST = 300  # characters of a message about an argument


class Parser(argparse.ArgumentParser):
    """Whose errors are one line: the usage is what --help is for."""

    def error(self, message: str):
        """Ends the process with exit code 2."""
        message = message if len(message) <= MOST else f"{message[:MOST]} ..."
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")


def set_threads(count: int | None, backend: str = "torch") -> None:
    """CPU threads of the torch backend; None leaves torch's choice. ValueError below 1, and for another backend."""
    if count is None:
        return
    check_whole("--threads", count, max(16, 2 * (os.cpu_count() or 1)))
    if choose(backend) != "torch":
        raise ValueError("--threads sets torch's CPU threads; leave it out with backend mlx")
    import torch

    torch.set_num_threads(count)
