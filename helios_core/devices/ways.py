"""What a user may choose of how things are computed. Which of it there is, the backends know."""

ATTENTION = ("auto", "sdpa", "cudnn", "flash", "flash3", "sage", "flex", "math")
PRODUCTS = ("auto", "widened", "scaled")
