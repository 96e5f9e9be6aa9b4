"""The queues between a worker and the event loop of its rules."""

def fd() -> int:
    """The event loop's descriptor; raises OSError when there is none to be had."""
