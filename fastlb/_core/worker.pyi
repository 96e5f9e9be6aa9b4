"""The event loop of one worker process."""

def run(
    index: int,
    segment_fd: int,
    channel_fd: int,
    log_fd: int,
    log_socket: bool,
    adoption_fd: int = -1,
) -> int:
    """Serves until it is told to stop; returns the exit status."""
