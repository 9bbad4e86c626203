"""A SLURM of one node, started for the tests of one session: Debian's `slurm-wlm` and `munge`."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from golden_noise.cli.conf import CONF

ROOT = CONF.parent
FILES = ROOT / "docs/cluster"
ENVIRONMENT = "source .venv/bin/activate || exit"  # the one line of the files that this cluster changes
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")
CPUS = 4  # more than there may be: the tests need two jobs of two tasks at a time
GPUS = ("null", "zero", "full", "random")  # of /dev, which nobody opens
GOING_ON = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED"}

CONFIG = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,sched_interval=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Slurm:
    """A running cluster.

    Args:
        folder: of its state and logs.
    """

    folder: Path

    def call(self, *command: str, paths: Sequence[Path] = ()) -> str:
        """Run a command of SLURM, and return what it prints; jobs import modules also from the paths."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "PYTEST"))}
        environment |= {"SLURM_CONF": f"{self.folder}/slurm.conf", "PYTHONPATH": ":".join(map(str, [ROOT, *paths]))}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit(
        self, job: str, output: Path, options: Sequence[str], settings: Sequence[str], paths: Sequence[Path] = ()
    ) -> str:
        """Submit a file of the documentation, with its line for the environment changed; return the job's number."""
        text = (FILES / f"{job}.sbatch").read_text()
        assert text.count(ENVIRONMENT) == 1
        python = f'PATH="{Path(sys.executable).parent}:$PATH"'
        script = self.folder / f"{job}.sbatch"
        script.write_text(text.replace(ENVIRONMENT, python))
        options = ["--parsable", f"--output={output}/%j.out", *options]
        return self.call("sbatch", *options, str(script), *settings, paths=paths)

    def show(self, number: str) -> list[dict[str, str]]:
        """What SLURM says of a job, or of each of an array."""
        lines = self.call("scontrol", "show", "job", "--oneliner", number).splitlines()
        return [dict(word.partition("=")[::2] for word in line.split()) for line in lines]

    def wait(self, number: str, seconds: float = 400) -> set[str]:
        """Wait until a job, or all of an array, has ended; return the states."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            states = {job["JobState"] for job in self.show(number)}
            if not states & GOING_ON:
                return states
            time.sleep(0.3)
        raise AssertionError(self.call("squeue", "--long"))

    def until(self, number: str, happened: Callable[[], bool], seconds: float = 300) -> None:
        """Wait until something has happened while a job runs."""
        deadline = time.monotonic() + seconds
        while not happened():
            states = {job["JobState"] for job in self.show(number)}
            assert time.monotonic() < deadline and states & GOING_ON, states
            time.sleep(0.1)

    def let_time_run_out(self, number: str, seconds: int) -> None:
        """Move the end of a job's time, until it is queued again; SLURM looks every 30 seconds whose time is over."""
        self.call("scontrol", "update", f"JobId={number}", f"EndTime=now+{seconds}seconds")
        self.until(number, lambda: self.show(number)[0]["Restarts"] == "1")
        self.call("scontrol", "update", f"JobId={number}", "TimeLimit=60")


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A cluster whose state is in a folder of its own, which ends with the session."""
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.fail(f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)  # munged refuses others
    cluster = Slurm(folder)
    write_config(folder)
    commands = [
        ["munged", "--foreground", "--force", *munge_files(folder)],
        ["slurmctld", "-D", "-c", "-f", f"{folder}/slurm.conf"],
        ["slurmd", "-D", "-c", "-f", f"{folder}/slurm.conf"],
    ]
    daemons = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.log").open("w") as log:
                bound = ["setpriv", "--pdeathsig", "TERM", *command]  # ends with this process, however that ends
                daemons.append(subprocess.Popen(bound, stdout=log, stderr=log, start_new_session=True))
            time.sleep(0.5)
        wait_for_node(cluster)
        yield cluster
        cluster.call("scancel", "--full", f"--user={os.getuid()}")
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:
                daemon.kill()
        shutil.rmtree(folder, ignore_errors=True)


def write_config(folder: Path) -> None:
    """Write SLURM's settings and the key that its parts share."""
    host = socket.gethostname().partition(".")[0]
    values = {"host": host, "ports": free_ports(2), "user": os.getuid(), "folder": folder}
    (folder / "slurm.conf").write_text(CONFIG.format(**values, cpus=CPUS, gpus=len(GPUS)))
    (folder / "gres.conf").write_text("".join(f"Name=gpu File=/dev/{name}\n" for name in GPUS))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").touch(0o600)
    (folder / "munge.key").write_bytes(os.urandom(1024))


def munge_files(folder: Path) -> list[str]:
    """Options that keep what munged writes in a folder."""
    names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
    return [f"--{option}={folder}/munge.{name}" for option, name in names.items()]


def free_ports(count: int) -> list[int]:
    """Numbers of ports that nobody uses."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for_node(cluster: Slurm) -> None:
    """Wait until the node takes jobs."""
    deadline, said = time.monotonic() + 30, ""
    while time.monotonic() < deadline:
        try:
            if (said := cluster.call("sinfo", "--noheader", "--format=%T")) == "idle":
                return
        except AssertionError as error:  # the controller starts
            said = str(error)
        time.sleep(0.3)
    logs = "".join(path.read_text() for path in cluster.folder.glob("*.log"))
    raise AssertionError(f"{said}\n{logs}")
