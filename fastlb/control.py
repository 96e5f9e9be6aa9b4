"""The control process: starts everything, answers commands and signals, stops.

It may stall or die without a request failing: the workers go on with what they have, and the
next control process takes them over (adopt.py); so does another version of the program
(upgrade.py).
"""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from msgspec import structs

import fastlb
from fastlb import (
    adopt,
    edits,
    errors,
    log,
    manifest,
    reserve,
    side_process,
    upgrade,
    worker_sockets,
)
from fastlb._core.process import no_new_privileges
from fastlb.access_log import AccessLog, open_access_log
from fastlb.check import check_file
from fastlb.config import Config
from fastlb.control_socket import Answer, ControlSocket
from fastlb.edit_commands import EditCommands
from fastlb.errors import StartError
from fastlb.host_names import expand
from fastlb.in_force import ACKNOWLEDGE_S, InForce, Prepared
from fastlb.listeners import short_backlog
from fastlb.machine import StateLock, User, open_state_dir, raise_descriptor_limit
from fastlb.name_watch import NameWatch
from fastlb.node_commands import NodeCommands
from fastlb.node_words import NodeWords
from fastlb.notify import Notify
from fastlb.saved_maps import SavedMaps
from fastlb.secret import load_secret, secret_mark, session_keys
from fastlb.segment import SharedSegment
from fastlb.sessions import SessionCommands
from fastlb.silence import Silence
from fastlb.status import removable, status_of
from fastlb.succession import HANDLED, Succession
from fastlb.units import InetAddress
from fastlb.uses import rules_of
from fastlb.workers import COMMAND, KILL_AFTER_S, Workers

FAILED_STARTS_MAX = 3  # per worker, before a start is given up
TIDY_S = 1.0  # between two looks for what nobody uses any more
NAMES_S = 0.2  # to gather what several host names lead to
NAMES_AGAIN_S = 5.0  # what they lead to could not be put in force
HELD_LOOK_S = 2.0  # between two looks for sessions at addresses that names lead to no more
AFTER_DRAIN_S = 2.0  # for workers to end once the drain time is over
FIXED = ("state_dir", "secret_file", "user")  # keys of [proxy]


class Reloaded(NamedTuple):
    """What became of a reload: with errors, everything is as it was."""

    errors: list[str]
    warnings: list[str]
    wrong_configuration: bool = False
    refused: tuple[str, ...] = ()  # workers that cannot use it, each logged when it said so


def _worker_timeout_s(cfg: Config) -> float:
    """After which a silent worker is ended; 0: never."""
    timeout_ms = cfg.proxy.worker_timeout_ms
    rules_ms = 2 * cfg.rules.timeout_ms if rules_of(cfg) else 0
    return max(timeout_ms, rules_ms) / 1000 if timeout_ms else 0.0


class Control:
    """One running fastlb."""

    user: User | None
    saved: SavedMaps
    access_log: AccessLog
    in_force: InForce
    prepared: Prepared

    def __init__(self, cfg: Config, command: tuple[str, ...] = COMMAND) -> None:
        self.cfg = cfg  # as started: what cannot be changed in place is read from it
        self.file = cfg.file.absolute()
        self.command = command
        self.names = NameWatch(self._names_changed, self._in_use)
        self.stopping = asyncio.Event()
        self.hurrying = asyncio.Event()
        self.notify = Notify()
        self.instance = secrets.token_hex(8)  # which of the programs that this process has been
        self.ready = False
        self._inheritance = upgrade.inheritance()
        self._found: list[adopt.Found] = []  # workers of a control process before this one
        self._silent: list[int] = []  # columns of such that do not answer
        self._resumed: list[adopt.Found] = []  # those of them whose memory is gone on with
        self._workers_stay = False  # should this process end now
        self.reloading = asyncio.Lock()
        self._names_follow = False  # soon
        self._names_looked = 0.0
        self._names_problem = ""  # said last
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> int:
        """Serves until told to stop; returns the exit status. Raises StartError."""
        with ExitStack() as undo:
            undo.callback(self.names.close)
            await self.names.learn(self.cfg)
            self.names.settle(self.cfg)
            self._open(undo)
            commands = {
                "status": self._status_command,
                "reload": self._reload_command,
                "stop": self._stop_command,
                "upgrade": Succession(self).command,
                "about": self.about,
                "node": NodeCommands(self.in_force, self.words).run,
                "edit": EditCommands(self.in_force, self.words, self.reloading).run,
                "sessions": SessionCommands(self.in_force).run,
            }
            inherited = self._inheritance.control if self._inheritance else None
            control_socket = ControlSocket(self.cfg.proxy.state_dir, commands, inherited)
            await control_socket.open()
            undo.callback(control_socket.close)
            self.control_socket = control_socket
            self._become_user(control_socket.path)
            no_new_privileges()
            self._handle_signals()
            undo.callback(lambda: self.workers.let_go(everything=self.ready))
            if await self._start_workers():
                self.ready = self._workers_stay = True
                log.write(self._ready_line())
                self.notify.ready(f"serving, generation {self.in_force.generation}")
                await self._serve()
            await self._end_workers()
            self._workers_stay = False
            self.saved.save(self.in_force.segment)
        return 0

    # --- start ---

    def _open(self, undo: ExitStack) -> None:
        """Takes everything that start-up needs; all that is wrong is said at once."""
        proxy = self.cfg.proxy
        open_state_dir(proxy.state_dir)
        kept = self._inheritance
        self.lock = StateLock(proxy.state_dir, kept.lock if kept else None)
        undo.callback(self.lock.release)
        self._find_workers()
        wrong: list[StartError] = []
        warnings = [short_backlog()]
        steps: tuple[Callable[[], None], ...] = (
            lambda: warnings.append(raise_descriptor_limit(self.cfg, proxy.workers)),
            self._open_user,
            lambda: self._open_log(undo),
            lambda: self._open_memory_and_sockets(undo),
            self._open_secret,
        )
        for step in steps:
            try:
                step()
            except StartError as error:
                wrong.append(error)
        if wrong:
            raise StartError.of_all(wrong)
        for line in filter(None, warnings):
            log.warn(line)
        reserve.hold()
        self.in_force.keys = self.keys
        self.words = NodeWords(proxy.state_dir)
        self.in_force.states.words = self.words.load()
        for line in self._words_over(self.in_force.adopt(self.prepared)):
            log.warn(line)
        if not self._resumed:
            self.saved.load(self.in_force.segment)
        self.workers = self.in_force.workers = Workers(
            self.in_force.columns,
            proxy.state_dir,
            self.in_force.segment,
            self.in_force.listeners,
            self.access_log,
            self.in_force.changes.notify,
            self.command,
        )
        self.silence = Silence(self.workers)
        self.workers.adopt(one.as_worker(foreign=one not in self._resumed) for one in self._found)

    def _find_workers(self) -> None:
        state_dir = self.cfg.proxy.state_dir
        try:
            worker_sockets.make_directory(state_dir)
        except OSError as error:
            reason = f"{worker_sockets.DIRECTORY}: {error.strerror or error}"
            raise StartError(errors.STATE_DIR, path=state_dir, reason=reason) from None
        if self._inheritance:
            upgrade.reap_all()
        self._found, self._silent = adopt.find(state_dir, _worker_timeout_s(self.cfg))
        self._workers_stay = bool(self._found)
        if self._found:
            pids = ", ".join(str(one.hello.pid) for one in self._found)
            log.info(f"workers {pids} serve already and are taken over")

    def _end_silent(self, segment: SharedSegment | None) -> None:
        """Those that do not answer. Raises StartError where nobody does and they are to be left."""
        timeout_s = _worker_timeout_s(self.cfg)
        if self._silent and not self._found and not timeout_s:
            raise StartError(errors.WORKERS_SILENT, seconds=f"{adopt.ANSWER_S:g}")
        waited = adopt.ANSWER_S if self._found else max(timeout_s, adopt.ANSWER_S)
        adopt.end_silent(self.cfg.proxy.state_dir, segment, self._silent, waited)

    def _words_over(self, lines: list[str]) -> list[str]:
        """Warnings, once the file of the operator's words is without those that are over."""
        return lines + self.words.save(self.in_force.states.words) if lines else []

    def _open_user(self) -> None:
        name = self.cfg.proxy.user
        self.user = User(name) if name is not None else None

    def _open_log(self, undo: ExitStack) -> None:
        self.access_log = open_access_log(self.cfg.proxy.access_log)
        undo.callback(lambda: self.access_log.close())

    def _open_memory_and_sockets(self, undo: ExitStack) -> None:
        workers, state_dir, found = self.cfg.proxy.workers, self.cfg.proxy.state_dir, self._found
        resumed, self._resumed = adopt.resumed(found, workers, state_dir) or (None, [])
        self._end_silent(resumed.segment if resumed else None)
        self.in_force = resumed or InForce(workers, state_dir)
        self.in_force.generation = max(self.in_force.generation, adopt.generation(found))
        undo.callback(lambda: self.in_force.close(let_go=self._workers_stay))
        columns = self.in_force.columns
        columns.leaving |= adopt.columns_to_leave(found, self._resumed, columns.places)
        self.in_force.listeners.adopt(
            adopt.sockets_of(found, self._inheritance.sockets if self._inheritance else ())
        )
        self.in_force.written, self.in_force.names = self.cfg, self.names
        if wrote := adopt.newest(self._resumed or found):
            self.names.remember(wrote.hosts)
            self.in_force.monitors.know(manifest.nodes_of(wrote))
        cfg = edits.apply(expand(self.cfg, self.names.known), self.in_force.edits)
        self.prepared = self.in_force.prepare(cfg, renew_workers=self._is_upgrade())

    def _is_upgrade(self) -> bool:
        """Whether workers of another version of the program serve, or were asked to be replaced."""
        wrote = adopt.newest(self._resumed)
        return bool(self._found) and (
            self._inheritance is not None
            or not self._resumed
            or (wrote is not None and wrote.version != fastlb.__version__)
        )

    def _open_secret(self) -> None:
        if self._inheritance:  # the file may be readable for root alone
            secret = upgrade.read_secret(self._inheritance.secret)
        else:
            secret = load_secret(self.cfg.proxy.secret_file)
        self.secret = secret
        self.keys = session_keys(secret)
        self.saved = SavedMaps(self.cfg.proxy.state_dir, secret_mark(secret))

    def _become_user(self, control_socket: Path) -> None:
        """Gives the user what has to be written later, then becomes it for good."""
        if self.user is None:
            return
        proxy = self.cfg.proxy
        paths: list[Path | int] = [proxy.state_dir.resolve(), self.lock.fd, control_socket]
        if proxy.secret_file.parent == proxy.state_dir:  # elsewhere it is the operator's
            paths.append(proxy.secret_file)
        paths.append(worker_sockets.directory(proxy.state_dir))
        paths += [self.words.path] if self.words.path.exists() else []
        paths += [self.access_log.fd] if self.access_log.is_ours else []
        self.user.give(paths)
        self.user.give_directory(self.saved.directory)
        self.user.become()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number, handler in (
            (signal.SIGTERM, self.stop),
            (signal.SIGINT, self.stop),
            (signal.SIGQUIT, lambda: self.stop(at_once=True)),
            (signal.SIGUSR1, self.reopen_log),
            (signal.SIGHUP, lambda: self._spawn(self._logged_reload())),
            (signal.SIGUSR2, lambda: self._spawn(Succession(self).logged())),
        ):
            loop.add_signal_handler(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_workers(self) -> bool:
        """Whether all workers run; False: told to stop before. Raises StartError."""
        self.in_force.send()
        failures_max = FAILED_STARTS_MAX * self.workers.count

        def decided() -> bool:
            failed = self.workers.failed_starts >= failures_max
            return failed or self.in_force.is_everywhere() or self.stopping.is_set()

        said = time.monotonic()
        while not await self.in_force.changes.until(decided, TIDY_S):
            self.silence.look(_worker_timeout_s(self.in_force.cfg or self.cfg))
            if time.monotonic() - said >= ACKNOWLEDGE_S:
                said = time.monotonic()
                for line in self._slow_workers():
                    log.warn(line)
        if self.workers.failed_starts >= failures_max and not self.in_force.is_everywhere():
            wrong = errors.NEW_WORKERS_FAIL if self._found else errors.WORKERS_FAIL
            raise StartError(wrong, how=self.workers.last_end)
        return not self.stopping.is_set()

    def _slow_workers(self) -> list[str]:
        """A warning for each worker that has said nothing of the configuration in force."""
        generation = self.in_force.generation
        return [
            errors.WORKER_SLOW.line(index=worker.index, pid=worker.pid, generation=generation)
            for worker in self.workers.running.values()
            if max(worker.acknowledged, worker.refused) < generation
        ]

    def _ready_line(self) -> str:
        listening = ", ".join(str(address) for address in self.in_force.listeners.open)
        pids = ", ".join(str(worker.pid) for _, worker in sorted(self.workers.running.items()))
        return f"fastlb: ready: listening on {listening}; workers {pids}"

    async def _serve(self) -> None:
        """Until told to stop."""
        self._spawn(self.notify.report_life(self.workers, self.stopping))
        while not self.stopping.is_set():
            try:
                await asyncio.wait_for(self.stopping.wait(), TIDY_S)
            except TimeoutError:
                reserve.hold()
                self.silence.look(_worker_timeout_s(self.in_force.cfg or self.cfg))
                self.in_force.states.look()
                await self._release_names()
                if not self.reloading.locked():
                    self.in_force.tidy()
                    self.in_force.rotate_ticket_keys()

    # --- host names ---

    def _names_changed(self) -> None:
        if not self._names_follow:
            self._names_follow = True
            self._spawn(self._follow_names())

    def _in_use(self, pool: str, address: InetAddress) -> bool:
        return self.in_force.cfg is not None and (pool, address) in self.in_force.cfg.hosts

    async def _follow_names(self) -> None:
        """Puts the addresses in force that host names have now."""
        await asyncio.sleep(NAMES_S)
        async with self.reloading:
            self._names_follow = False
            written, before = self.in_force.written, self.in_force.cfg
            if written is None or before is None or self.stopping.is_set():
                return
            cfg = edits.apply(expand(written, self.names.known), self.in_force.edits)
            try:
                if structs.replace(before, hosts=cfg.hosts) == cfg:
                    over = self.in_force.relabel(cfg)
                else:
                    over = await self.in_force.put(self.in_force.prepare(cfg, files=False))
            except StartError as error:
                line = errors.NAMES_NOT_IN_FORCE.line(reason="; ".join(error.lines))
                if line != self._names_problem:
                    log.warn(line)
                self._names_problem = line
                asyncio.get_running_loop().call_later(NAMES_AGAIN_S, self._names_changed)
                return
            self._names_problem = ""
            for line in self._words_over(over):
                log.warn(line)

    async def _release_names(self) -> None:
        """Takes addresses out that names lead to no more, once that ends no session."""
        if not self.names.held or time.monotonic() < self._names_looked + HELD_LOOK_S:
            return
        self._names_looked = time.monotonic()
        assert self.in_force.cfg is not None
        hosts = self.in_force.cfg.hosts.items()
        leaving = [place for place, one in hosts if one.leaving]
        self.names.expire(await removable(self.in_force, leaving))

    # --- reload ---

    async def reload(self) -> Reloaded:
        """Reads the file again and puts it in force, as a whole or not at all."""
        async with self.reloading:
            reserve.give()
            checked = await asyncio.to_thread(check_file, self.file)  # imports rules, elsewhere
            if self.stopping.is_set():
                return Reloaded(["fastlb is stopping"], [])
            warnings = [str(problem) for problem in checked.warnings]
            if checked.config is None:
                return Reloaded([str(one) for one in checked.errors], warnings, True)
            cfg, fixed = self._with_what_stays(checked.config)
            warnings += [errors.NEEDS_RESTART.line(key=f"[proxy] {key}") for key in fixed]
            await self.names.learn(cfg)
            try:
                warnings += filter(None, [raise_descriptor_limit(cfg, cfg.proxy.workers)])
                prepared = self.in_force.prepare(expand(cfg, self.names.known), edits=[])
            except StartError as error:
                self.names.settle(self.in_force.written or cfg)
                return Reloaded(error.lines, warnings)
            before, ended = self.in_force.cfg, self._edits_over(cfg)
            over = await self.in_force.put(prepared)
            self.in_force.written = cfg
            self.names.settle(cfg)
            warnings += self._change_log(cfg, before)
            warnings += self._words_over(over) + ended
            generation = self.in_force.generation
            await self.in_force.changes.until(
                lambda: self.workers.all_answered(generation), ACKNOWLEDGE_S
            )
            warnings += self._slow_workers()
            self.in_force.tidy()
            return Reloaded([], warnings, refused=tuple(self.workers.refusals(generation)))

    def _edits_over(self, cfg: Config) -> list[str]:
        """A warning for each change of a pool that was made by command and is lost now."""
        return [
            errors.EDIT_OVER.line(
                node=f"{edit.address} of [pools.{edit.pool}]", what=edits.in_words(edit)
            )
            for edit in edits.over(cfg, self.in_force.edits)
        ]

    def _with_what_stays(self, cfg: Config) -> tuple[Config, list[str]]:
        """The new configuration with those keys as they are that only a start can change."""
        started = self.cfg.proxy
        changed = [key for key in FIXED if getattr(cfg.proxy, key) != getattr(started, key)]
        kept = {key: getattr(started, key) for key in FIXED}
        proxy = structs.replace(cfg.proxy, **kept)
        return structs.replace(cfg, proxy=proxy), changed

    def _change_log(self, cfg: Config, before: Config | None) -> list[str]:
        """Opens another access log where the configuration names one."""
        if before is not None and cfg.proxy.access_log == before.proxy.access_log:
            return []
        try:
            self.access_log = open_access_log(cfg.proxy.access_log)
        except StartError as error:
            return [errors.LOG_KEPT.line(reason=error.lines[0])]
        self.workers.use_log(self.access_log)
        return []

    def reopen_log(self) -> None:
        """For log rotation: the same name, a new file."""
        assert self.in_force.cfg is not None
        try:
            self.access_log = open_access_log(self.in_force.cfg.proxy.access_log)
        except StartError as error:
            log.warn(errors.LOG_KEPT.line(reason=error.lines[0]))
            return
        self.workers.use_log(self.access_log)
        log.info("access log opened again")

    async def _logged_reload(self) -> Reloaded:
        self.notify.reloading("reloading")
        done = await self.reload()
        self.notify.ready(f"serving, generation {self.in_force.generation}")
        for line in done.warnings:
            log.warn(line)
        for line in done.errors:
            log.error(line)
        kept = "not reloaded: the configuration before stays in force"
        log.info(kept if done.errors else f"reloaded: generation {self.in_force.generation}")
        return done

    # --- stop ---

    def stop(self, at_once: bool = False) -> None:
        """Begins to stop; at once if told so, or told a second time."""
        side_process.abort()  # a reload or an upgrade would wait for it
        if at_once or self.stopping.is_set():
            self.hurrying.set()
        self.stopping.set()
        self.in_force.changes.notify()

    async def _end_workers(self) -> None:
        """Gives running requests their drain time, and then no more."""
        assert self.in_force.cfg is not None
        drain_ms = self.in_force.cfg.timeouts.drain_ms

        def gone() -> bool:
            return not self.workers.every

        self.notify.stopping("stopping")
        if not self.hurrying.is_set() and drain_ms:
            log.info(f"stopping: running requests have {drain_ms / 1000:g} s")
            self.in_force.listeners.close_all()  # the workers take what is queued, then close
            self.workers.stop(drain_ms)
            seconds = drain_ms / 1000 + AFTER_DRAIN_S
            await self.in_force.changes.until(lambda: gone() or self.hurrying.is_set(), seconds)
        if self.workers.every:
            self.workers.stop(0)
            if not await self.in_force.changes.until(gone, KILL_AFTER_S):
                self.workers.kill()
                await self.in_force.changes.until(gone, KILL_AFTER_S)

    # --- commands ---

    async def _status_command(self, request: Answer) -> Answer:
        return {"ok": True, "status": await status_of(self.in_force)}

    async def _reload_command(self, request: Answer) -> Answer:
        done = await self._logged_reload()
        return {
            "ok": not done.errors,
            "errors": done.errors,
            "warnings": done.warnings,
            "refused": done.refused,
            "configuration": done.wrong_configuration,
            "generation": self.in_force.generation,
            "file": str(self.file),
        }

    async def about(self, request: Answer) -> Answer:
        """Which program this is, and whether it serves yet."""
        return {
            "ok": True,
            "version": fastlb.__version__,
            "instance": self.instance,
            "pid": os.getpid(),
            "ready": self.ready,
            "workers": [worker.pid for worker in self.workers.running.values()],
            "leaving": [worker.pid for worker in self.workers.leaving.values()],
        }

    async def _stop_command(self, request: Answer) -> Answer:
        assert self.in_force.cfg is not None
        drain_s = self.in_force.cfg.timeouts.drain_ms / 1000
        self.stop(at_once=bool(request.get("at_once")))
        return {"ok": True, "pid": os.getpid(), "drain_seconds": drain_s}
