"""The watchdog of rules: for rule_watch.py and rule_loop.py."""

def set_times(watchdog_ms: int, timeout_ms: int) -> None:
    """After how long a call is reported, and asked to end (0: never)."""

def set_name(slot: int, name: str) -> None:
    """What the rule in `slot` is called in reports."""

def start(
    dump_signal: int,
    ask_signal: int,
    dump_fd: int,
    loop_fd: int,
    package: bytes,
    report_fd: int = 2,
) -> None:
    """Starts the thread, once; it watches nobody yet."""

def stop() -> None:
    """Ends the thread, which watches nobody any more."""

def runs() -> bool:
    """Whether the thread runs."""

def watch_worker(watched: bool = True) -> None:
    """The calling thread is the worker's, or is it no more."""

def watch_loop(watched: bool = True) -> None:
    """The calling thread is that of the event loop, or is it no more."""

def loop_busy() -> None:
    """The event loop's thread begins to run what is ready."""

def loop_idle() -> None:
    """It waits for what is to come."""

def overdue() -> bool:
    """Whether the call that runs in the worker's thread is the one that was asked to end."""

def in_child() -> None:
    """This is a forked child: rules may run to their end here, but no further."""

def leave_if_forked() -> None:
    """Called behind each async rule; ends a child that came back from one."""

def ask_loop(exception: type[BaseException]) -> bool:
    """Raises `exception` in the event loop's thread, if what was asked to end still holds it."""
