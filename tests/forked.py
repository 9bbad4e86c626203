"""Processes that need not import the libraries again: they are forked from one server that has done so.

Importing takes seven seconds, which is most of what a test of an entry point would cost otherwise.
The processes that a script starts with `sys.executable`, such as Lightning's other ranks or the jobs of a sweep, are
forks as well: `python.py` in a folder of this session stands in for the interpreter and asks a process for a fork.
"""

import atexit
import fcntl
import multiprocessing
import os
import pickle
import runpy
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from golden_noise.cli.conf import CONF

ROOT = CONF.parent
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["golden_noise.training.job", "golden_noise.generation.job", "golden_noise.shapes.models"]
)

STAND_IN = '''#!{python} -IS
"""Runs `python [-u] [-m] SCRIPT ARGUMENTS...` as a fork: dies with it, and takes it along when killed."""
import os, pickle, signal, socket, sys

arguments = sys.argv[2:] if sys.argv[1:2] == ["-u"] else sys.argv[1:]
if not arguments or (arguments[0].startswith("-") and arguments[0] != "-m"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
open_files = []
for name in os.listdir("/proc/self/fd"):
    try:
        os.fstat(int(name))
        open_files.append(int(name))
    except OSError:
        pass  # that of the folder
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = pickle.dumps((arguments, dict(os.environ), os.getcwd(), open_files))
socket.send_fds(server, [len(request).to_bytes(4, "big")], open_files)
server.sendall(request)
for passed_on in (signal.SIGTERM, signal.SIGINT):
    signal.signal(passed_on, lambda number, frame: server.sendall(bytes([number])))
code = int.from_bytes(server.recv(4), "big", signed=True)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
'''


@cache
def _stand_in() -> str:
    """The path of the interpreter's stand-in, once the process is there that forks for it."""
    folder = Path(tempfile.mkdtemp(prefix="forked-"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "address"))
    listener.listen(64)
    script = folder / "python.py"
    script.write_text(STAND_IN.format(python=sys.executable, address=str(folder / "address")), "utf-8")
    script.chmod(0o700)
    CONTEXT.Process(target=_serve, args=(listener, str(script)), daemon=True).start()
    listener.close()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(script)


def start_script(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> BaseProcess:
    """Start `python ARGUMENTS...` in the repository, such as `train.py model=unet` or `-m torch.distributed.run`.

    It leads a process group, to which its data workers belong.

    Args:
        folder: gets what it writes, as `stdout` and `stderr`.
        environment: variables beside those of this process.
    """
    variables = {**os.environ, **(environment or {})}
    process = CONTEXT.Process(target=_script, args=(folder, arguments, variables, _stand_in()))
    process.start()
    return process


def run_script(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 250
) -> "CompletedProcess[str]":
    """Run it to its end; see `start_script`."""
    process = start_script(folder, *arguments, environment=environment)
    process.join(timeout)
    process.kill()
    process.join()
    said = [(folder / name).read_text("utf-8") for name in ("stdout", "stderr")]
    return CompletedProcess(arguments, process.exitcode or 0, *said)


def _script(folder: Path, arguments: Sequence[str], environment: Mapping[str, str], stand_in: str) -> None:
    os.setsid()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND), descriptor)
    _run(arguments, environment, str(ROOT), stand_in)


def _run(arguments: Sequence[str], environment: Mapping[str, str], folder: str, stand_in: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # the default again, such as for the workers of data loaders
    sys.executable = stand_in
    sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))  # noqa: SIM115
    name = arguments[1] if arguments[0] == "-m" else arguments[0]
    sys.argv = list(arguments[arguments[0] == "-m" :])
    sys.path[:0] = [str(ROOT), *environment.get("PYTHONPATH", "").split(os.pathsep)]
    if arguments[0] == "-m":
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(name, run_name="__main__")


# The server of the stand-ins ----------------------------------------------------------------------------------


def _serve(listener: socket.socket, stand_in: str) -> None:
    """Has a process of its own for each stand-in, which forks the script and watches over both."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    while not parent or parent.sentinel not in select.select([listener, parent.sentinel], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                _serve_one(connection, stand_in)
            finally:
                os._exit(1)
        connection.close()


def _serve_one(connection: socket.socket, stand_in: str) -> None:
    size, received, _, _ = socket.recv_fds(connection, 4, 250)
    data = b""
    while len(data) < int.from_bytes(size, "big"):
        data += (more := connection.recv(1 << 20))
        if not more:  # killed
            return
    arguments, environment, folder, numbers = pickle.loads(data)
    child = os.fork()
    if child == 0:
        connection.close()
        os.setsid()
        apart = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 500) for descriptor in received]
        for descriptor in received:
            os.close(descriptor)
        for descriptor, number in zip(apart, numbers, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        end_like_python(arguments, environment, folder, stand_in)
    for descriptor in received:
        os.close(descriptor)
    ended = os.pidfd_open(child)
    while ended not in select.select([connection, ended], [], [])[0]:
        signals = connection.recv(64)
        for number in signals:
            os.kill(child, number)
        if not signals:  # the stand-in was killed
            os.killpg(child, signal.SIGKILL)
            break
    _, status = os.waitpid(child, 0)
    connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))


def end_like_python(*script: Any) -> None:
    """Run a script and end this process as the interpreter ends."""
    multiprocessing.current_process().daemon = False  # which may have children
    code: object = 0
    try:
        _run(*script)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code or 0)
