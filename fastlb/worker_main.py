"""A worker process.

    python -m fastlb.worker_main COLUMN SEGMENT_FD CHANNEL_FD LOG_FD SYSLOG ADOPTION_FD

Started by the control process (workers.py). It imports as little as it can, since a worker that
crashed is replaced while its connections wait.
"""

import signal
import sys


def main(arguments: list[str]) -> int:
    """Runs the worker; returns its exit status."""
    # What the terminal or a group's signal tells the control process is not for workers.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    from fastlb._core.worker import run

    column, segment_fd, channel_fd, log_fd, syslog, *adoption_fd = map(int, arguments)
    status = run(column, segment_fd, channel_fd, log_fd, bool(syslog), *adoption_fd)
    if "fastlb.rule_threads" in sys.modules:
        sys.modules["fastlb.rule_threads"].leave(status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
