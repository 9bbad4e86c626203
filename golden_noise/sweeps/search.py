"""Hyperparameter search with Optuna: every trial is a plain `python train.py` in a folder of its own.

Trials are kept in `study.journal` beside their folders, and a trial's folder is locked while its process lives. So a
search that was killed goes on with the trials it was at, and any number of processes, on machines that share the
folder, work on the same search.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from tqdm import tqdm

from golden_noise.cli.conf import CONF
from golden_noise.cli.config import job_config
from golden_noise.errors import UserError
from golden_noise.sweeps.runs import Run
from golden_noise.sweeps.space import Space
from golden_noise.sweeps.sweep import held, quoted
from golden_noise.tracking import record

POLL = 0.5  # seconds between looks at a trial's log
PATIENCE = 60  # seconds that a stopped trial has to end by itself


@dataclass
class Search:
    """A search in its folder.

    Args:
        name: of the folder below the run folders of train.py.
        overrides: for every trial, beside the space's.
        trials: how many there shall be in the end, by all processes together.
        seed: of the suggestions: one process alone makes the same ones, killed or not.
    """

    space: Space
    name: str
    overrides: Sequence[str]
    trials: int
    seed: int = 0

    def __post_init__(self) -> None:
        config = self._composed()
        self.folder = Path(config.paths.outputs).absolute() / config.job / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stopped = threading.Event()
        settings = {"space": self.space.content, "overrides": list(self.overrides)}
        study = self._study()
        if study.user_attrs.get("settings", settings) != settings:
            raise UserError(f"{self.folder} is a search with other settings: give another --name or delete that folder")
        study.set_user_attr("settings", settings)

    def run(self, workers: int = 1) -> None:
        """Work until all trials are done, some of them perhaps by other processes."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with tqdm(desc="searching", total=self.trials, unit="trial") as bar, ThreadPoolExecutor(workers) as pool:
            try:
                for future in [pool.submit(self._work, bar) for _ in range(workers)]:
                    future.result()
            finally:  # also when interrupted: running trials end, to be gone on with next time
                self._stopped.set()

    def best(self) -> FrozenTrial:
        """The best finished trial.

        Raises:
            UserError: there is none.
        """
        study = self._study()
        if not study.get_trials(states=[TrialState.COMPLETE]):
            raise UserError(f"no trial of {self.folder} ran to its end: see the log.txt of each")
        return study.best_trial

    def _work(self, bar: tqdm) -> None:
        study = self._study()
        while not self._stopped.is_set():
            with self._next(study) as (trial, lock):
                if trial is None or lock is None:
                    return
                self._run(study, trial, lock)
                done = [t for t in study.trials if t.state.is_finished()]
                ended = study.trials[trial.number]
                value = "" if ended.value is None else f" {self.space.metric} {ended.value:.4f}"
                if ended.state.is_finished():
                    bar.write(f"trial {trial.number}: {ended.state.name.lower()}{value} {_shown(ended.params)}")
                bar.n = len(done)
                bar.refresh()

    @contextmanager
    def _next(self, study: optuna.Study) -> Iterator[tuple[Trial, int] | tuple[None, None]]:
        """A trial whose process is dead, else a new one, its folder held; None if there is nothing left to do."""
        with ExitStack() as stack:
            with _alone(self.folder):
                found = self._dead(study, stack)
                if found is None and len(study.trials) < self.trials:
                    trial = study.ask()
                    lock = stack.enter_context(held(self._place(trial.number)))
                    assert lock is not None  # nobody else knows of the trial yet
                    found = trial, lock
            yield found or (None, None)

    def _dead(self, study: optuna.Study, stack: ExitStack) -> tuple[Trial, int] | None:
        for old in study.get_trials(states=[TrialState.RUNNING]):
            if (lock := stack.enter_context(held(self._place(old.number)))) is not None:
                return Trial(study, old._trial_id), lock
        return None

    def _run(self, study: optuna.Study, trial: Trial, lock: int) -> None:
        """Train and tell Optuna the outcome; nothing if the search is stopped meanwhile."""
        study.sampler = self._sampler(trial.number)
        values = {key: _suggested(trial, key, distribution) for key, distribution in self.space.varied.items()}
        place = self._place(trial.number)
        finished = record.read(place) is not None  # by a training that outlived its search
        state = TrialState.COMPLETE if finished else self._train(trial, values, place, lock)
        if state == TrialState.COMPLETE:
            self._report(trial, place, prune=False)
            seen = study.trials[trial.number].intermediate_values.values()
            if not seen:
                raise UserError(f"{place} logged no {self.space.metric}: metric.name must be what validations log")
            study.tell(trial, (max if self.space.maximize else min)(seen))
        elif state != TrialState.RUNNING:
            study.tell(trial, state=state)

    def _train(self, trial: Trial, values: dict[str, Any], place: Path, lock: int) -> TrialState:
        """Train, telling Optuna of every validation; still running if the search is stopped meanwhile."""
        options = [f"{key}={_as_text(value)}" for key, value in (self.space.fixed | values).items()]
        name = f"name={quoted(f'{self.name}/{place.name}')}"
        command = [sys.executable, str(CONF.parent / "train.py"), *options, *self.overrides, name]
        with (place / "log.txt").open("ab") as log:
            # The lock goes along: if this process is killed, nobody else takes the trial while it still runs.
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, pass_fds=[lock])
            while process.poll() is None:
                time.sleep(POLL)
                pruned = self._report(trial, place, prune=True)
                if pruned or self._stopped.is_set():
                    _end(process)
                    return TrialState.PRUNED if pruned else TrialState.RUNNING
        if process.returncode == 0:
            return TrialState.COMPLETE
        return TrialState.RUNNING if self._stopped.is_set() else TrialState.FAIL

    def _report(self, trial: Trial, place: Path, prune: bool) -> bool:
        """Pass on what was logged since the last time, up to where the trial is to be pruned; whether it is."""
        known = trial.study.trials[trial.number].intermediate_values
        for epoch, value in Run(place, {}, None).curve(self.space.metric):
            if epoch not in known:
                trial.report(value, epoch)
                if prune and trial.should_prune():  # epoch by epoch: how many came at once must not matter
                    return True
        return False

    def _place(self, number: int) -> Path:
        return self.folder / f"trial-{number:04d}"

    def _study(self) -> optuna.Study:
        storage = JournalStorage(JournalFileBackend(str(self.folder / "study.journal")))
        pruner: BasePruner = NopPruner()
        if self.space.min_epochs is not None:
            pruner = SuccessiveHalvingPruner(self.space.min_epochs, reduction_factor=self.space.eta)
        return optuna.create_study(
            storage=storage,
            study_name=self.name,
            direction="maximize" if self.space.maximize else "minimize",
            pruner=pruner,
            load_if_exists=True,
        )

    def _sampler(self, number: int) -> BaseSampler:
        """A sampler whose random numbers follow from the trial's number, so that a restart repeats none."""
        seed = (self.seed + 1_000_003 * number) % 2**32
        return RandomSampler(seed) if self.space.method == "random" else TPESampler(seed=seed, multivariate=False)

    def _composed(self) -> DictConfig:
        """The config of a trial, up to its values."""
        some = {key: _some_value(d) for key, d in self.space.varied.items()}
        options = [f"{key}={_as_text(value)}" for key, value in (self.space.fixed | some).items()]
        try:
            config = job_config("train", [*options, *self.overrides])
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(" ".join(str(error).split())[:300]) from error
        if "csv" not in config.logger:
            raise UserError("the search reads what the CSV logger writes: add csv to logger=[csv]")
        return config


def search(space: Space, name: str, overrides: Sequence[str], trials: int, workers: int) -> None:
    """Search, then write the summary of all trials and print the best one's settings."""
    found = Search(space, name, overrides, trials)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the running trials end, too
    found.run(workers)
    best = found.best()
    from golden_noise.sweeps.summary import summarize  # loads much

    summarize(found.folder)
    chosen = _shown(space.fixed | best.params)
    print(f"best: trial {best.number}, {space.metric} {best.value:.4f}: python train.py {chosen}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process and thread at a time chooses its next trial."""
    with (folder / ".choosing").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a training and all its ranks."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _suggested(trial: Trial, key: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(key, distribution.choices)
        case IntDistribution():
            return trial.suggest_int(key, distribution.low, distribution.high)
        case FloatDistribution():
            return trial.suggest_float(
                key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
            )


def _some_value(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return distribution.low  # type: ignore[attr-defined]


def _as_text(value: Any) -> str:
    """A value as Hydra's command line has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return quoted(value) if isinstance(value, str) else str(value)


def _shown(values: dict[str, Any]) -> str:
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={_as_text(value)}"
        for key, value in values.items()
    )
