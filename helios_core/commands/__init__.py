"""What the `helios` command does, one module per subcommand."""

from ..devices import choose


def set_threads(count: int | None, backend: str = "torch") -> None:
    """CPU threads of the torch backend; None leaves torch's choice. ValueError below 1, and for another backend."""
    if count is None:
        return
    if count < 1:
        raise ValueError(f"--threads must be at least 1, got {count}")
    if choose(backend) != "torch":
        raise ValueError("--threads sets torch's CPU threads; leave it out with backend mlx")
    import torch

    torch.set_num_threads(count)
