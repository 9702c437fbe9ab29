"""Networks, once per library: torch and MLX, twin files, and what both share."""
