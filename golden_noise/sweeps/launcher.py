"""Multiruns (`-m`): a Hydra launcher for any sweeper, whose jobs are processes of their own.

Several processes may run the same sweep, on machines that share the folder: each takes jobs that no other has.
Rerunning the same command does what is missing. So does a search whose sampler has a seed: it suggests the same
settings again, and at once gets the results of finished jobs.
"""

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from golden_noise.cli.arguments import parsed
from golden_noise.cli.entry import AFTER_SWEEP
from golden_noise.errors import UserError
from golden_noise.invocation import again
from golden_noise.sharing.processes import started_several_times
from golden_noise.sweeps import names  # noqa: F401 - its resolvers
from golden_noise.sweeps.halving import Halving
from golden_noise.sweeps.jobs import POLL, Interrupted, Job, held
from golden_noise.tracking import record
from golden_noise.tracking.record import without_name

OWN_TO_THE_SWEEP = ("hydra.mode=", "hydra.sweep", "hydra/sweeper", "hydra.launcher", "hydra/launcher", "hydra.run.dir=")


class ProcessLauncher(Launcher):
    """Runs each job of a sweep as a process of its own. A job's return value is the best val/explained.

    Args:
        n_jobs: how many run at the same time.
        wait: also for jobs of other processes, as a search needs their results.
        halving: arguments of `Halving`; None: no training is stopped.
    """

    def __init__(self, n_jobs: int = 1, wait: bool = False, halving: Mapping[str, int] | None = None):
        if not isinstance(n_jobs, int) or n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs={n_jobs} must be a positive integer")
        try:
            self.halving = Halving(**halving) if halving else None
        except (TypeError, ValueError) as error:
            raise UserError(f"hydra.launcher.halving={halving}: {error}") from error
        self.n_jobs, self.wait = n_jobs, wait
        self._over = threading.Event()
        self._elsewhere: set[int] = set()  # numbers of jobs that other processes were reported to have

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra; the task is not used, as it runs in another process."""
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the jobs; a job that fails is reported and stops no other."""
        if started_several_times():
            raise UserError(
                "-m under torchrun or in several SLURM tasks: start the sweep as one plain process (of an sbatch "
                "--array, each is), Lightning starts the ranks of every job"
            )
        AFTER_SWEEP[:] = [partial(finish, Path(self.config.hydra.sweep.dir).absolute())]
        jobs = [self._job(number, overrides) for number, overrides in enumerate(job_overrides, initial_job_idx)]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        try:
            return self._run(jobs)
        except (KeyboardInterrupt, SystemExit) as end:
            print("interrupted: resume by rerunning the same command", file=sys.stderr)
            sys.exit(end.code if isinstance(end, SystemExit) else 1)

    def _run(self, jobs: Sequence[Job]) -> list[JobReturn]:
        done: dict[int, JobReturn] = {}
        with ThreadPoolExecutor(self.n_jobs) as pool:
            try:
                while left := [job for job in jobs if job.number not in done]:
                    attempts = zip(left, pool.map(self._attempt, left), strict=True)
                    done |= {job.number: result for job, result in attempts if result}
                    self._over.wait(POLL if len(done) < len(jobs) else 0)
            finally:  # also when interrupted: running jobs end, and resume next time
                self._over.set()
        self._over.clear()
        results = [done[job.number] for job in jobs]
        for failed in (some := [result for result in results if result.status == JobStatus.FAILED]):
            failed.return_value = UserError(f"{len(some)} of {len(jobs)} jobs failed")  # each was reported
        return results

    def _attempt(self, job: Job) -> JobReturn | None:
        """Do a job, or find it done; None while another process has it."""
        result = JobReturn(overrides=job.overrides, task_name=self.config.hydra.job.name, status=JobStatus.COMPLETED)
        try:
            with held(job.folder) as lock:
                if lock is None:
                    if job.number not in self._elsewhere:
                        print(f"{job}: another process has it")
                        self._elsewhere.add(job.number)
                    if self.wait:
                        return None
                elif job.result():
                    print(f"{job}: finished already")
                elif self._over.is_set():
                    return None
                else:
                    job.run(lock, self._over.is_set, apart=self.n_jobs > 1)
                result.return_value = (job.result() or {}).get("explained")
        except Interrupted:
            return None
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            result.status = JobStatus.FAILED
        return result

    def _job(self, number: int, overrides: Sequence[str]) -> Job:
        config: Any = self.loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.num = number
        folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)
        settings = [as_argument(text) for text in without_name(config.hydra.overrides.task)]
        command = [sys.executable, *again(), *_flags(config), *settings, f"hydra.run.dir={quoted(str(folder))}"]
        if "name" in config:
            runs = Path(config.paths.outputs).expanduser().absolute() / config.job
            command.append(f"name={quoted(os.path.relpath(folder.absolute(), runs))}")
        return Job(number, folder, settings, command, self.halving)


def finish(folder: Path) -> None:
    """Print the summary of a sweep of trainings, and the best settings of a search."""
    if any(record.read(path.parent) for path in folder.glob(f"*/{record.RECORD}")):
        from golden_noise.sweeps.summary import summarize  # loads much

        summarize(folder)
    if (results := folder / "optimization_results.yaml").exists():
        best: Any = OmegaConf.load(results)
        settings = " ".join(f"{key}={value}" for key, value in best.best_params.items())
        print(f"best: {best.best_value:.4f} with {settings}")


def as_argument(override: str) -> str:
    """A setting of a job as an argument of its own command line, without the escapes of Hydra's sweepers."""
    found = parsed(override) if "\\" in override else None
    value = found and found.value()
    return f"{override.partition('=')[0]}={quoted(value)}" if isinstance(value, str) else override


def quoted(text: str) -> str:
    """A text as one value of Hydra's command line, in the form that finished jobs have recorded."""
    return QuotedString(text, Quote.single).with_quotes()


def _flags(config: Any) -> list[str]:
    """Hydra's own settings on the command line that the jobs need, without those of the sweep."""
    hydra = config.hydra
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    name = hydra.job.config_name
    other = [] if name == Path(again()[-1]).stem else [f"--config-name={name}"]
    settings = [text for text in hydra.overrides.hydra if not text.startswith(OWN_TO_THE_SWEEP)]
    return [*other, *(f"--config-dir={folder}" for folder in folders), *settings]
