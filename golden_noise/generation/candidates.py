"""Candidates around golden noise for people to score, and the table that holds the scores.

The table has a row for each image. What a person fills in is `score`, any finite number, higher is better. All else
says which image it is, and is checked by `check` when the table is read.
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from golden_noise import identity
from golden_noise.errors import UserError, one_line
from golden_noise.files import write_atomically
from golden_noise.generation.methods import Method
from golden_noise.invocation import command
from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.loading import model_dtype
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.prompts import Prompt
from golden_noise.search.judging import derived_noise

SCORES = "scores.csv"
COLUMNS = ("image", "prompt", "seed", "member", "sigma", "network", "check", "score")
PLAIN = "none"  # the network of candidates around plain noise


@dataclass(frozen=True)
class Origin:
    """What drew candidates: short hashes of the network's weights, or `PLAIN`, and of the pipeline's settings."""

    network: str
    pipeline: str

    @classmethod
    def of(cls, config: DictConfig, digest: str | None) -> "Origin":
        """The origin of candidates of a job, with the digest of its network's weights; None: no network."""
        settings: Any = OmegaConf.to_container(config.pipeline.model, resolve=True)
        drawing = identity.model(settings, model_dtype(config.pipeline.model, config.device), visible=())
        return cls(digest[:16] if digest else PLAIN, identity.digest(drawing))

    def check(self, prompt: str, seed: int, member: int, sigma: float) -> str:
        """What a row with these facts holds as `check`."""
        return identity.digest(self.network, self.pipeline, prompt, seed, member, float(sigma))[:16]


@dataclass(frozen=True)
class Group:
    """The candidates of a prompt's noise: their scores by member, None where there is none."""

    prompt: Prompt
    sigma: float
    scores: list[float | None]


def candidate(network: AnyNPNet | None, sigma: float, member: int) -> Method:
    """The method that draws one member of each group, as `objective=policy` would."""

    def drawn(noise: Tensor, prompt: PromptEmbedding, seeds: list[int]) -> Tensor:
        golden = noise if network is None else network.golden(noise, prompt)
        return golden + sigma * derived_noise(noise, member).to(golden)

    return drawn


def write_table(
    folder: Path, images: Sequence[Sequence[Path]], prompts: Sequence[Prompt], sigma: float, by: Origin
) -> None:
    """Write a table without scores; one that is there is kept, since a person may have filled it in.

    Args:
        images: of every prompt, its candidates by member.

    Raises:
        UserError: the table that is there is of other images.
    """
    rows = []
    for prompt, group in zip(prompts, images, strict=True):
        for member, image in enumerate(group):
            name, check = image.relative_to(folder).as_posix(), by.check(prompt.text, prompt.seed, member, sigma)
            rows.append([name, prompt.text, prompt.seed, member, sigma, by.network, check, ""])
    path = folder / SCORES
    if path.exists():
        if {row["check"] for _, row in table_rows(path)} != {row[-2] for row in rows}:
            raise UserError(f"{path} is of other images: move it away, and rerun to get a new one")
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_atomically(path, text.getvalue())


def read_table(path: str | Path, by: Origin) -> list[Group]:
    """The groups of a table that teach something: those with at least two scores.

    Args:
        by: what must have drawn all of its images.

    Raises:
        UserError: with the line, if a row is damaged, changed, doubled, missing from its group, or of another network
            or pipeline; or no group has two scores.
    """
    path = Path(path).expanduser()
    groups: defaultdict[tuple[str, int, float], dict[int, float | None]] = defaultdict(dict)
    lines: dict[tuple[str, int, float], int] = {}
    for line, row in table_rows(path):
        try:
            key, member, score = _parsed(row, by)
            if member in groups[key]:
                raise ValueError("this image has a row already")
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {one_line(error, 300)}") from None
        groups[key][member] = score
        lines.setdefault(key, line)
    size = max((max(members) + 1 for members in groups.values()), default=0)
    for key, members in groups.items():
        if lacking := sorted({*range(size)} - {*members}):
            raise UserError(
                f"{path}, line {lines[key]}: the group of {one_line(key[0], 100)!r} (seed {key[1]}) that begins here "
                f"lacks member {lacking[0]} of {size}: keep every row, and leave the score empty where there is none"
            )
    known = [(key, [members[i] for i in range(size)]) for key, members in groups.items()]
    taught = [(key, scores) for key, scores in known if sum(score is not None for score in scores) >= 2]
    if not taught:
        raise UserError(f"{path}: no group has two scores: fill in the column 'score'")
    return [Group(Prompt(i, key[0], key[1]), key[2], scores) for i, (key, scores) in enumerate(taught)]


def table_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table with the numbers of their last lines, not checked yet.

    Raises:
        UserError: it does not exist, or is no such table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if lacking := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise UserError(
                    f"{path} has no column {lacking[0]!r}: it must be the {SCORES} of noise=candidates, with commas "
                    "between its cells"
                )
            return [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: draw candidates with {command('generate')} noise=candidates first"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} as a table: {one_line(error, 200)}") from error


def _parsed(row: Mapping[str, Any], by: Origin) -> tuple[tuple[str, int, float], int, float | None]:
    """Prompt, seed and sigma, the member, and the score of a row.

    Raises:
        ValueError: it is damaged, or not of an image that was drawn so.
    """
    if None in row or None in row.values():
        raise ValueError(f"it does not have {len(COLUMNS)} cells")
    if row["network"] != by.network:
        raise ValueError(
            f"drawn by the network {row['network']}, but this training starts from {by.network}: give the npnet= that "
            "drew it"
        )
    try:
        prompt, seed, member, sigma = row["prompt"], int(row["seed"]), int(row["member"]), float(row["sigma"])
    except ValueError:
        raise ValueError("seed and member must be integers and sigma a number") from None
    if row["check"] != by.check(prompt, seed, member, sigma):
        raise ValueError("a cell of it was changed, or another pipeline drew it: only scores may be filled in")
    try:
        score = float(row["score"]) if row["score"].strip() else None
    except ValueError:
        score = math.nan
    if score is not None and not math.isfinite(score):
        raise ValueError(f"score {row['score']!r} must be a finite number, or empty")
    return (prompt, seed, sigma), member, score
