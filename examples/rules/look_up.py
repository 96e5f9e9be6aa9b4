"""A small cache for rules that ask a data base: remembers answers, and asks once however many wait.

Used by node_sqlite.py and node_postgres.py: copy it together with them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable


class LookUp:
    """`ask` with a memory: an answer (also None) is good for `ttl` seconds; `size` are kept.

    An error is given to all who wait for it and is not remembered. Whoever is cancelled because the
    client left does not cancel the question for the others.
    """

    def __init__(
        self,
        ask: Callable[[str], Awaitable[str | None]],
        ttl: float = 30.0,
        size: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._ttl = ttl
        self._size = size
        self._clock = clock
        self._known: dict[str, tuple[float, str | None]] = {}  # key: (good until, answer)
        self._asking: dict[str, asyncio.Task[str | None]] = {}

    async def __call__(self, key: str) -> str | None:
        known = self._known.get(key)
        if known is not None and known[0] > self._clock():
            return known[1]
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._fetch(key))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(task)

    def forget(self, key: str) -> None:
        """The next request asks anew."""
        self._known.pop(key, None)

    def _answered(self, key: str, task: asyncio.Task[str | None]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain if nobody waits

    async def _fetch(self, key: str) -> str | None:
        answer = await self._ask(key)
        self._known.pop(key, None)  # so that it becomes the newest
        self._known[key] = (self._clock() + self._ttl, answer)
        while len(self._known) > self._size:
            del self._known[next(iter(self._known))]
        return answer
