"""How a control process gives way to another program in its own process: when it may, and what of
it goes along. What is done by the new one is in control.py.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import fastlb
from fastlb import errors, log, manifest, upgrade, worker_sockets
from fastlb.control_socket import Answer
from fastlb.errors import StartError

if TYPE_CHECKING:
    from fastlb.control import Control

EXECUTE_S = 0.1  # for the answer to a command to be sent
HANDLED = {  # signals; while this process becomes another program they wait for its handlers
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
}


class Succession:
    """One upgrade of a control process."""

    def __init__(self, control: "Control") -> None:
        self.control = control

    async def prepare(self) -> upgrade.Rehearsed:
        """Tries the new program; from then on nothing else changes. Raises StartError."""
        control = self.control
        await control.reloading.acquire()
        try:
            self._demand_time()
            try:
                new = await asyncio.to_thread(upgrade.rehearse, upgrade.program())
            except StartError:
                self._demand_time()  # a stop has ended it
                raise
            self._demand_time()
            state_dir = control.cfg.proxy.state_dir
            if new.state_dir != str(state_dir.resolve()):
                how = f"has another state_dir, {new.state_dir}, and would not find the workers"
                raise StartError(errors.REHEARSAL_FAILED, how=how)
            self._demand_found(state_dir)
            try:
                control.in_force.columns.chosen(control.workers.count, renewed=True)
            except OverflowError as error:
                raise StartError(errors.STILL_LEAVING, reason=error) from None
            return new
        except BaseException:
            control.reloading.release()
            raise

    def _demand_time(self) -> None:
        if self.control.stopping.is_set() or not self.control.ready:
            how = "is not needed: this one starts or stops just now"
            raise StartError(errors.REHEARSAL_FAILED, how=how)

    def _demand_found(self, state_dir: Path) -> None:
        """Raises StartError where a worker has no socket at which the new program would find it:
        with the last one their memory would be gone."""
        there = worker_sockets.columns(state_dir)
        running = sorted(self.control.workers.running.items())
        lost = [one for column, one in running if not one.findable or column not in there]
        if lost:
            pids = ", ".join(str(one.pid) for one in lost)
            how = f"would not find workers {pids}, whose sockets are not in {state_dir}/workers"
            raise StartError(errors.REHEARSAL_FAILED, how=how)

    def execute(self, new: upgrade.Rehearsed) -> None:
        """Becomes the new program; says so and goes on when that cannot be done."""
        control, in_force = self.control, self.control.in_force
        if control.stopping.is_set():
            return
        log.info(f"upgrading from {fastlb.__version__} to {new.version}")
        if new.layout != manifest.layout():
            control.saved.save(in_force.segment)  # it cannot read this memory
        kept = self._inheritance()
        in_force.monitors.close()  # and the process of their functions
        control.notify.reloading(f"upgrading to {new.version}")
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            upgrade.execute(upgrade.program(), kept)
        except OSError as error:
            os.close(kept.secret)
            assert in_force.cfg is not None
            in_force.monitors.sync(in_force.cfg, in_force.tls)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            control.notify.ready(f"serving, generation {in_force.generation}")
            log.error(errors.NOT_EXECUTED.line(reason=error.strerror or error))
            control.reloading.release()

    def _inheritance(self) -> upgrade.Inheritance:
        listeners = self.control.in_force.listeners.open.values()
        return upgrade.Inheritance(
            pid=os.getpid(),
            version=fastlb.__version__,
            lock=self.control.lock.fd,
            secret=upgrade.secret_file(self.control.secret),
            control=self.control.control_socket.fileno(),
            sockets=upgrade.numbered([s.fileno() for s in one.sockets] for one in listeners),
        )

    async def logged(self) -> None:
        """By a signal."""
        try:
            self.execute(await self.prepare())
        except StartError as error:
            for line in error.lines:
                log.error(line)

    async def command(self, request: Answer) -> Answer:
        """By a command, which is answered before."""
        try:
            new = await self.prepare()
        except StartError as error:
            return {"ok": False, "errors": error.lines}
        asyncio.get_running_loop().call_later(EXECUTE_S, self.execute, new)
        return await self.control.about(request)
