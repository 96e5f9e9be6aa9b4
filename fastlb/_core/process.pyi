"""What a process asks of the kernel for itself."""

def no_new_privileges() -> None:
    """Nothing that is executed from now on can gain rights by it."""
