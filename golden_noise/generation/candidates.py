"""Candidates around golden noise for people to score, and the table that holds the scores.

The table has a row for each image. What a person fills in is `score`, a number up to `LARGEST`, higher is better. All
else says which image it is and how many groups were drawn, and is checked by `check` when the table is read. It may
come back from any spreadsheet: with commas, semicolons or tabs, in UTF-8 or UTF-16.
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
from golden_noise.prompts.commas import without_empty_end
from golden_noise.prompts.files import read_text
from golden_noise.prompts.records import Reader
from golden_noise.prompts.tables import column_names, find_delimiter
from golden_noise.search.judging import derived_noise

SCORES = "scores.csv"
COLUMNS = ("image", "prompt", "seed", "member", "sigma", "network", "groups", "check", "score")
LARGEST = 1e9  # of a score: far from where floats skip numbers that a person would tell apart
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
        return cls(f"npnet-{digest[:16]}" if digest else PLAIN, identity.digest(drawing))

    def check(self, image: str, prompt: str, seed: int, member: int, sigma: float, groups: int) -> str:
        """What a row with these facts holds as `check`.

        It begins with a word, as `network` does: spreadsheets take hexadecimal digits like 12e45 for a number.
        """
        facts = (self.network, self.pipeline, image, prompt, seed, member, float(sigma), groups)
        return f"check-{identity.digest(*facts)[:16]}"


@dataclass(frozen=True)
class Group:
    """The candidates of a prompt's noise: their scores by member, None where there is none."""

    prompt: Prompt
    sigma: float
    scores: list[float | None]


@dataclass(frozen=True)
class _Row:
    """An image: its group (prompt, seed and sigma), its number there, and how many groups were drawn with it."""

    group: tuple[str, int, float]
    member: int
    score: float | None
    groups: int


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
            name = image.relative_to(folder).as_posix()
            check = by.check(name, prompt.text, prompt.seed, member, sigma, len(prompts))
            rows.append([name, prompt.text, prompt.seed, member, sigma, by.network, len(prompts), check, ""])
    path = folder / SCORES
    if path.exists():
        if {row["check"] for _, row in table_rows(path)} != {row[-2] for row in rows}:
            raise UserError(f"{path} is of other images: move it away, and rerun to get a new one")
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_atomically(path, text.getvalue())


def read_table(path: str | Path, by: Origin) -> tuple[list[Group], int]:
    """The groups of a table that teach something, those with at least two scores, and how many were drawn.

    Args:
        by: what must have drawn all of its images.

    Raises:
        UserError: with the line, if a row is damaged, changed, doubled, missing from its group, or of another network,
            pipeline or drawing; or no group has two different scores.
    """
    path = Path(path).expanduser()
    groups: defaultdict[tuple[str, int, float], dict[int, float | None]] = defaultdict(dict)
    lines: dict[tuple[str, int, float], int] = {}
    drawn = 0
    for line, cells in table_rows(path):
        try:
            row = _parsed(cells, by)
            drawn = drawn or row.groups
            if row.member in groups[row.group]:
                raise ValueError("this image has a row already")
            if row.groups != drawn or len(groups) > drawn:
                raise ValueError(f"of another drawing than the {drawn} groups above: train with a table at a time")
        except ValueError as error:
            raise UserError(f"{path}, line {line}: {one_line(error, 300)}") from None
        groups[row.group][row.member] = row.score
        lines.setdefault(row.group, line)
    size = max((max(members) + 1 for members in groups.values()), default=0)
    for key, members in groups.items():
        if lacking := sorted({*range(size)} - {*members}):
            raise UserError(
                f"{path}, line {lines[key]}: the group of {one_line(key[0], 100)!r} (seed {key[1]}) that begins here "
                f"lacks member {lacking[0]} of {size}: keep every row, and leave the score empty where there is none"
            )
    known = [(key, [members[i] for i in range(size)]) for key, members in groups.items()]
    if not any(len({*scores} - {None}) >= 2 for _, scores in known):
        raise UserError(f"{path}: no group has two different scores: fill in the column 'score'")
    taught = [(key, scores) for key, scores in known if sum(score is not None for score in scores) >= 2]
    return [Group(Prompt(i, key[0], key[1]), key[2], scores) for i, (key, scores) in enumerate(taught)], drawn


def table_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table that are not blank, with the numbers of their first lines; their cells are not checked yet.

    Raises:
        UserError: it does not exist, or is no such table; with the line, if a row has not a cell for every column.
    """
    try:
        text, delimiter = find_delimiter(read_text(path), ",", lambda names: COLUMNS[0] in names)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: draw candidates with {command('generate')} noise=candidates first"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path} as a table: {one_line(error, 200)}") from error
    records = list(Reader(path, text, delimiter, marks=True).records())
    names = column_names(without_empty_end(records[0].cells, 1)) if records else []
    if wrong := [name for name in COLUMNS if names.count(name) != 1]:
        count = "two columns" if wrong[0] in names else "no column"
        raise UserError(f"{path} has {count} {wrong[0]!r}: it must be the {SCORES} of noise=candidates")
    rows = []
    for record in records[1:]:
        cells = without_empty_end(record.cells, len(names))
        if len(cells) != len(names):
            raise UserError(f"{path}, line {record.line}: {len(cells)} cells for {len(names)} columns")
        row = dict(zip(names, cells, strict=True))
        if delimiter == ";":  # which spreadsheets write where the comma is in the numbers
            row |= {name: row[name].replace(",", ".") for name in ("sigma", "score")}
        rows.append((record.line, row))
    return rows


def _parsed(row: Mapping[str, str], by: Origin) -> _Row:
    """What a row holds.

    Raises:
        ValueError: it is damaged, or not of an image that was drawn so.
    """
    if row["network"] != by.network:
        raise ValueError(
            f"drawn by the network {row['network']}, but this training starts from {by.network}: give the npnet= that "
            "drew it"
        )
    try:
        seed, member, groups = (int(row[name]) for name in ("seed", "member", "groups"))
        sigma = float(row["sigma"])
    except ValueError:
        raise ValueError("seed, member and groups must be integers and sigma a number") from None
    if row["check"] != by.check(row["image"], row["prompt"], seed, member, sigma, groups):
        raise ValueError("a cell of it was changed, or another pipeline drew it: only scores may be filled in")
    try:
        score = float(row["score"]) if row["score"].strip() else None
    except ValueError:
        score = math.nan
    if score is not None and not abs(score) <= LARGEST:
        raise ValueError(f"score {row['score']!r} must be a number from -1e9 to 1e9, or empty")
    return _Row((row["prompt"], seed, sigma), member, score, groups)
