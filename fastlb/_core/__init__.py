"""The data plane: compiled modules that run without the GIL (docs/architecture.md)."""
