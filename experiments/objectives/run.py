"""Every objective, network and search against each other, in 1, 4 and 10 steps, on both miniatures.

python -m experiments.objectives.run [PIPELINE-STEPS ...]

Says what it has found after each training of a setting, so that a run cut short has a table, too.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from experiments.frontier.run import calls
from experiments.study import (
    SEEDS,
    SMOKE,
    Pairs,
    Scores,
    averaged,
    axes,
    each,
    evaluated,
    gain,
    identifier,
    interval,
    mean,
    save_figure,
    scores,
    tabulate,
    trained,
)

NETWORKS = ("denoiser_lora", "svd_unet+unet", "low_frequency")
# Learning rates without pairs; those of the recipe are for a squared error.
CAREFUL = dict.fromkeys(NETWORKS, "recipe.lr=1e-3") | {"denoiser_lora": "recipe.denoiser_lr=3e-4"}
COUNT = 64 if SMOKE else 2000  # pairs or prompts that a training learns from
SEARCHED = 32 if SMOKE else 600  # noises that each search is given
RENO = ("reno", "iterations=5", "lr=1")
RIVALS = {"constant": "best constant", "guided": "guidance 2", "best_of_n": "best of 2"}
COLOURS = {"": "#444444", "denoiser_lora": "#c28a00", "svd_unet+unet": "#7a4fa3", "low_frequency": "#2b8a57"}


@dataclass(frozen=True)
class Setting:
    """A miniature, and how many steps it draws in."""

    pipeline: str
    steps: int

    @property
    def name(self) -> str:
        return f"{self.pipeline}-{self.steps}"

    @property
    def options(self) -> list[str]:
        return [f"pipeline={self.pipeline}", f"pipeline.steps={self.steps}"]

    @property
    def inversion(self) -> list[str]:
        """Pairs of full inversion; one step has no path down of its own."""
        return ["search.steps=4", "search.back_steps=1"] if self.steps == 1 else [f"search.steps={self.steps}"]


# The settings where noise matters most come first.
SETTINGS = [
    Setting("shapes", 4),
    Setting("shapes_turbo", 1),
    Setting("shapes_turbo", 4),
    Setting("shapes", 10),
    Setting("shapes_turbo", 10),
    Setting("shapes", 1),
]


@dataclass(frozen=True)
class Taught:
    """A way to learn: settings of `train.py` beyond the pairs or prompts."""

    name: str
    options: tuple[str, ...]
    networks: tuple[str, ...] = NETWORKS
    pairs: tuple[str, ...] | None = None  # what they are collected with; None: prompts alone


def taught(setting: Setting) -> list[Taught]:
    few = ("recipe.epochs=2",)
    level = ("search=noise_level_guidance", "search.jitter=0", "search.steps=${pipeline.steps}")
    return [
        Taught("pairs, full inversion", (), pairs=tuple(setting.inversion)),
        Taught("pairs, noise-level guidance", (), pairs=level),
        Taught("guided", ("objective=guided", "objective.target_guidance=2", *few)),
        Taught("reward, β = 1", ("objective=reward", *few)),
        Taught("policy, strict", ("objective=policy", "reward=strict", *few)),
        *(
            Taught(f"reward, β = {beta}", ("objective=reward", f"objective.beta={beta}", *few), NETWORKS[:1])
            for beta in ("0.1", "10", "256")
        ),
    ]


@dataclass(frozen=True)
class Training:
    """One network, taught in one way."""

    setting: Setting
    how: Taught
    network: str

    @property
    def name(self) -> str:
        return identifier(f"{self.how.name} {self.network}".replace("β = ", "").replace(",", ""))

    def folder(self, seed: int) -> Path:
        """Of the trained network."""
        collected = self.how.pairs
        pairs = Pairs(
            f"objectives/{self.setting.name}/{identifier(self.how.name)}" if collected else "unused",
            COUNT,
            (*self.setting.options, *(collected or ())),
        )
        name = f"objectives/{self.setting.name}/{self.name}"
        rates = [] if collected else [CAREFUL[self.network]]
        return trained(name, pairs, seed, *self.how.options, f"model={self.network}", *rates)


def trainings(setting: Setting) -> list[Training]:
    return [Training(setting, how, network) for how in taught(setting) for network in how.networks]


def judged(setting: Setting, seed: int) -> Path:
    """All networks of a seed on held-out prompts; with the first seed, what needs no training as well."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each training is a process of one thread
        folders = list(pool.map(lambda training: training.folder(seed), trainings(setting)))
    networks = {training.name: folder for training, folder in zip(trainings(setting), folders, strict=True)}
    methods = "standard,constant,guided,best_of_n" if seed == SEEDS[0] else "standard"
    options = [f"evaluation.methods=[{methods}]", "evaluation.best_of={count:2,metric:reward}"]
    return evaluated(f"objectives/{setting.name}/{seed}", *setting.options, *options, networks=networks)


def searches(setting: Setting) -> dict[str, Sequence[str]]:
    return {
        "full_inversion": ["full_inversion", *(option.removeprefix("search.") for option in setting.inversion)],
        "noise_level_guidance": ["noise_level_guidance", f"steps={setting.steps}"],
        "reno": RENO,
        "reno_sphere": [*RENO, "regulariser=sphere"],
        "zero_order": ["zero_order"],
        "best_of_8": ["best_of_n"],
    }


def searched(setting: Setting) -> Path:
    """What the searches reach themselves."""
    options = ["evaluation.methods=[standard]", f"prompts.count={SEARCHED}", *setting.options]
    return evaluated(f"objectives/{setting.name}/searched", *options, searches=searches(setting))


@dataclass(frozen=True)
class Found:
    """What a method of some evaluations came to."""

    folders: Sequence[Path]
    method: str

    @property
    def strict(self) -> Scores:
        return averaged(scores(folder, self.method) for folder in self.folders)

    @property
    def row(self) -> dict[str, object]:
        rewards = averaged(scores(folder, self.method, "reward") for folder in self.folders)
        trainings = (mean(scores(folder, self.method)) for folder in self.folders)
        return {
            "calls": f"{calls(self.folders[0], self.method):g}",
            "reward": f"{mean(rewards):.2f}",
            "strict": f"{mean(self.strict):.3f}",
            "each training": each(trainings) if len(self.folders) > 1 else "",
        }

    def against(self, other: "Found") -> str:
        return interval(gain(other.strict, self.strict))


def rows_of(setting: Setting, seeds: Sequence[int]) -> Iterator[dict[str, object]]:
    """What is known after these trainings: rivals, networks from the best down, searches."""
    folders = [judged(setting, seed) for seed in seeds]
    plain, constant = (Found(folders[:1], method) for method in ("standard", "constant"))
    yield row(setting, "plain noise", plain)
    for method, name in RIVALS.items():
        yield row(setting, name, Found(folders[:1], method), plain)
    networks = {training: Found(folders, training.name) for training in trainings(setting)}
    for training, found in sorted(networks.items(), key=lambda item: -mean(item[1].strict)):
        yield row(setting, training.how.name, found, plain, constant, training.network)
    folder = searched(setting)
    for method in searches(setting):
        yield row(setting, f"search={method}", Found([folder], method), Found([folder], "standard"))


def row(
    setting: Setting,
    what: str,
    found: Found,
    plain: Found | None = None,
    constant: Found | None = None,
    network: str = "",
) -> dict[str, object]:
    return {
        "setting": setting.name,
        "what": what,
        "network": network,
        **found.row,
        "against plain noise": found.against(plain) if plain else "",
        "against the best constant": found.against(constant) if constant else "",
    }


def draw(rows: Sequence[dict[str, object]]) -> None:
    """strict against calls, a panel for each setting."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    first = axes("", "", "")
    figure = first.figure
    first.remove()
    settings = list(dict.fromkeys(str(row["setting"]) for row in rows))
    ascending = sorted(rows, key=lambda row: float(str(row["strict"])))
    figure.set_size_inches(4.2 * len(settings), 4.4)
    for i, setting in enumerate(settings):
        panel = figure.add_subplot(1, len(settings), i + 1)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
        panel.set(title=setting, xlabel="denoiser calls per image", ylabel="strict", xscale="log")
        above = True
        for row in (row for row in ascending if row["setting"] == setting):
            x, y, network = float(str(row["calls"])), float(str(row["strict"])), str(row["network"])
            panel.plot([x], [y], marker="o" if network else "x", color=COLOURS[network], linestyle="none")
            if not network:  # their names are above and below by turns: neighbours are often level
                name, above = str(row["what"]).removeprefix("search="), not above
                place = {"xytext": (0, 5 if above else -9), "textcoords": "offset points", "ha": "center"}
                panel.annotate(name, (x, y), fontsize=6, **place)
        for network, colour in COLOURS.items():
            marker = "o" if network else "x"
            panel.plot([], [], marker=marker, linestyle="none", color=colour, label=network or "no network")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.margins(x=0.15)
        panel.legend(frameon=False, fontsize="x-small")
    save_figure(__file__, panel)


def main() -> None:
    chosen = [name for name in sys.argv[1:] if not name.startswith("--")]
    settings = [setting for setting in SETTINGS if not chosen or setting.name in chosen]
    rows: dict[str, list[dict[str, object]]] = {}
    for last in range(1, len(SEEDS) + 1):
        for setting in settings:
            rows[setting.name] = list(rows_of(setting, SEEDS[:last]))
            known = [row for found in rows.values() for row in found]
            tabulate(__file__, known)
            draw(known)


if __name__ == "__main__":
    main()
