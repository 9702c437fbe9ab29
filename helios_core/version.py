"""The pack's version, as in pyproject.toml: a chunk kept by another version is not taken up."""

VERSION = "0.1.0"
