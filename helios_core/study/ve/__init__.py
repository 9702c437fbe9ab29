"""The experiments of Variance Expansion, as toys."""
