"""What a user may choose of how things are computed. Which of it there is, the backends know."""

ATTENTION = ("auto", "sdpa", "cudnn", "flash", "flash3", "sage", "flex", "math")
PRODUCTS = ("auto", "widened", "scaled")
COMPILE = ("auto", "on", "off")
TRANSFORMER = {"attention": ATTENTION, "products": PRODUCTS, "compile": COMPILE}  # what is chosen of one
VAE_DTYPES = ("auto", "fp32", "bf16", "fp16")


def vae_numbers(chosen: str, device: str, fast_bf16: bool) -> str:
    """The number format of a VAE. auto: bf16 on CUDA that multiplies it at speed, float32 elsewhere; what that changes
    of pictures is measured in tests/benchmarks/vae.py. device: its kind."""
    if chosen != "auto":
        return chosen
    return "bf16" if device == "cuda" and fast_bf16 else "fp32"
