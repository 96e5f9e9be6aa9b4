"""The control plane's view of the node table; `table` is its address in this process."""

from typing import TypedDict

NODE_TABLE_BYTES: int
STATES: dict[str, int]

class NodeReading(TypedDict):
    state: str
    connections: int
    open: int
    response_us: int
    used_at_ms: int
    failures: int
    ejections: int
    ejected_until_ms: int
    returned_at_ms: int

def open_slot(table: int, slot: int, state: str) -> None: ...
def free_slot(table: int, slot: int) -> None: ...
def set_state(table: int, slot: int, state: str) -> None: ...
def get_state(table: int, slot: int) -> str: ...
def set_returned(table: int, slot: int, ms: int) -> None: ...
def clear_worker_column(table: int, worker: int) -> None: ...
def read_slot(table: int, slot: int, workers: int) -> NodeReading: ...
