"""Which columns of the node table and of the counters the workers have.

Worker number `place` of those that are configured has the column `places[place]`, and keeps it when
it is replaced. A worker that leaves keeps its column until it has ended.
"""

from fastlb.config import WORKERS_MAX

COLUMNS_MAX = 2 * WORKERS_MAX  # WORKERS_MAX of _core/limits.pxd


class Columns:
    """Those in use, of workers that stay and of workers that leave."""

    def __init__(self) -> None:
        self.places: tuple[int, ...] = ()
        self.leaving: set[int] = set()

    @property
    def in_use(self) -> int:
        """One more than the highest."""
        return 1 + max((*self.places, *self.leaving), default=-1)

    def chosen(self, count: int, renewed: bool = False) -> tuple[int, ...]:
        """Columns for `count` workers: those there are first, or new ones for all.

        Raises OverflowError when too many workers have not left yet.
        """
        stay = [column for column in self.places if column not in self.leaving]
        kept = [] if renewed else stay[:count]
        taken = self.leaving | set(self.places)
        free = [column for column in range(COLUMNS_MAX) if column not in taken]
        if len(kept) + len(free) < count:
            raise OverflowError(f"{len(taken)} workers are still there, {len(self.leaving)} leave")
        return (*kept, *free[: count - len(kept)])

    def adopt(self, places: tuple[int, ...]) -> None:
        """Workers have these columns from now on; the others leave."""
        self.leaving |= set(self.places) - set(places)
        self.places = places

    def free(self, column: int) -> None:
        """A worker that left has ended."""
        self.leaving.discard(column)
