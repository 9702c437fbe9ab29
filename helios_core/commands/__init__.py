"""What the `helios` command does, one module per subcommand."""


def set_threads(count: int | None) -> None:
    """CPU threads of the torch backend; None leaves torch's choice. ValueError below 1."""
    if count is None:
        return
    if count < 1:
        raise ValueError(f"--threads must be at least 1, got {count}")
    import torch

    torch.set_num_threads(count)
