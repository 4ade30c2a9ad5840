"""The real ``climb`` for tests, without the seconds that its imports take.

A process that has imported numpy, numba, pyarrow, torch and transformers forks once for each
command. The fork then does what a fresh interpreter does: it runs the installed script with the
arguments, environment, folder and open files that were asked for, and ends as a process of its own,
which may be killed. What an import costs or reads is not seen this way; tests of that start `CLIMB`
afresh.

Run as a program, this file is the process that forks.
"""

import atexit
import gc
import inspect
import os
import pickle
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

CLIMB = str(Path(sys.executable).with_name("climb"))
PRELOAD = (
    "numpy",
    "numba",
    "pyarrow.parquet",
    "scipy.optimize",
    "torch",
    "transformers.models.llama.modeling_llama",
)
MAX_REQUEST = 1 << 20
Variables = tuple[tuple[str, str], ...]
READ_AT_START = ("PYTHON", "LD_", "FAKETIME", "OMP_", "NUMBA_", "HF_")
"""Variables that the interpreter, the loader of shared objects or a library reads as it starts.

Where one of them differs from that of the tests, a fork of their server is too late. The command
then starts afresh. After `AFRESH` commands with the same variables, commands with them are forked
from a server that was started with them.
"""
AFRESH = 3
"""Commands that cost less than the imports of a server for them."""


class ClimbProcess(subprocess.Popen[Any]):
    """``climb`` with these arguments, as `subprocess.Popen` would start it."""

    _servers: ClassVar[dict[Variables, socket.socket]] = {}
    _processes: ClassVar[list[subprocess.Popen[bytes]]] = []
    _uses: ClassVar[Counter[Variables]] = Counter()

    def __init__(self, *arguments: object, **options: Any) -> None:
        self._status: socket.socket | None = None
        super().__init__([CLIMB, *map(str, arguments)], **options)

    def _execute_child(self, *arguments: Any) -> None:
        parent = super()._execute_child
        given = inspect.signature(parent).bind(*arguments).arguments
        environment = given["env"] if given["env"] is not None else dict(os.environ)
        variables = _at_start(environment)
        if given["preexec_fn"] or not self._has_server(variables):
            parent(*arguments)
            return
        request = {
            "arguments": given["args"],
            "environment": {os.fsdecode(k): os.fsdecode(v) for k, v in environment.items()},
            "folder": os.fspath(given["cwd"] or Path.cwd()),
            "session": given["start_new_session"],
        }
        files = [
            file if file >= 0 else default
            for file, default in zip(
                (given["p2cread"], given["c2pwrite"], given["errwrite"]), (0, 1, 2), strict=True
            )
        ]
        self._status, theirs = socket.socketpair()
        with theirs:
            server = self._running_server(variables)
            socket.send_fds(server, [pickle.dumps(request)], [*files, theirs.fileno()])
        (self.pid,) = struct.unpack("i", self._status.recv(4))
        self._child_created = True
        # As in the method that this replaces: the child's ends of the pipes are not ours.
        for file in {given["p2cread"], given["c2pwrite"], given["errwrite"]} - {-1, 0, 1, 2}:
            os.close(file)
        self._devnull = None

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._status is None:
            return super()._try_wait(wait_flags)
        self._status.setblocking(not wait_flags & os.WNOHANG)
        try:
            status = self._status.recv(4)
        except BlockingIOError:
            return 0, 0
        if not status:
            raise RuntimeError("the process that forks has ended")
        self._status.close()
        return self.pid, struct.unpack("i", status)[0]

    def _internal_poll(self, _deadstate: int | None = None, **_: Any) -> int | None:
        if self._status is None:
            return super()._internal_poll(_deadstate)
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode

    @classmethod
    def _has_server(cls, variables: Variables) -> bool:
        cls._uses[variables] += 1
        return cls._uses[variables] > AFRESH or variables == _at_start(dict(os.environ))

    @classmethod
    def _running_server(cls, variables: Variables) -> socket.socket:
        if variables not in cls._servers:
            cls._servers[variables], theirs = socket.socketpair(
                socket.AF_UNIX, socket.SOCK_SEQPACKET
            )
            own = {k: v for k, v in os.environ.items() if not k.startswith(READ_AT_START)}
            with theirs:
                cls._processes.append(
                    subprocess.Popen(
                        [sys.executable, __file__, str(theirs.fileno())],
                        pass_fds=[theirs.fileno()],
                        start_new_session=True,
                        env=own | dict(variables),
                    )
                )
        return cls._servers[variables]


def run_climb(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``climb`` to its end, as `subprocess.run` with its output as text."""
    timeout, given = options.pop("timeout", 300), options.pop("input", None)
    pipe = subprocess.PIPE
    options = {"stdout": pipe, "stderr": pipe, "text": True, **options}
    if given is not None:
        options["stdin"] = pipe
    with ClimbProcess(*arguments, **options) as process:
        try:
            output, errors = process.communicate(given, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _at_start(environment: dict[Any, Any]) -> Variables:
    pairs = ((os.fsdecode(k), os.fsdecode(v)) for k, v in environment.items())
    return tuple(sorted((k, v) for k, v in pairs if k.startswith(READ_AT_START)))


def serve(server: socket.socket) -> dict[str, Any]:
    """Fork for each request until the other side ends; returns the request in each fork alone."""
    children: dict[int, socket.socket] = {}
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                with suppress(BlockingIOError):
                    woken.recv(4096)
                _report(children)
            if server not in ready:
                continue
            data, files, _, _ = socket.recv_fds(server, MAX_REQUEST, 4)
            if not data:
                os._exit(0)
            status = socket.socket(fileno=files.pop())
            child = os.fork()
            if not child:
                signal.set_wakeup_fd(-1)
                for end in (server, woken, wake, status, *children.values()):
                    end.close()
                return {**pickle.loads(data), "files": files}
            status.send(struct.pack("i", child))
            children[child] = status
            for file in files:
                os.close(file)


def _report(children: dict[int, socket.socket]) -> None:
    """Tell of every child that has ended."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with children.pop(ended[0]) as status, suppress(OSError):
                status.send(struct.pack("i", ended[1]))


def become(request: dict[str, Any]) -> None:
    """Make this fork the process that was asked for, and run the script."""
    if request["session"]:
        os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Who runs the tests in the background has told them to ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, file in enumerate(request["files"]):
        os.dup2(file, target)
    for file in request["files"]:
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.argv = request["arguments"]
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    # To take a whole interpreter apart, page by page of what the fork shares, costs two seconds.
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    own = socket.socket(fileno=int(sys.argv[1]))
    for name in PRELOAD:
        __import__(name)
    gc.collect()
    gc.freeze()
    become(serve(own))
