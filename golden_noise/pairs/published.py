"""The published form of noise pairs: one `.npz` per pair, and JSON Lines files of captions and scores.

`arr_0` is x_T (1, C, H, W) in float16, `arr_1` is x'_T, `arr_2` the pair's integer index among the lines. A line holds
`seed` and `caption`, after a collection also `index`, `original_score_list` and `optimized_score_list`. The name of a
file is INDEX_SEED.npz. These sets hold no embeddings. They come from other people: no code in them runs.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from golden_noise.errors import UserError, one_line
from golden_noise.files import atomic_file
from golden_noise.pairs.embeddings import Encode
from golden_noise.pairs.index import ShardIndex
from golden_noise.pairs.pair import Failure, NoisePair, Result
from golden_noise.pairs.reader import format_shape, read_shard
from golden_noise.pairs.writer import ShardWriter
from golden_noise.prompts import Prompt, parse_object

ARRAYS = ("arr_0", "arr_1", "arr_2")
LINES = "pairs.jsonl"  # of an exported set
SEARCH = {"name": "published"}  # what is known of an imported pair's search


@dataclass(frozen=True)
class Line:
    """What a JSON Lines file says of a pair; `scores` are (standard, golden) in the order of the lists."""

    index: int
    seed: int | None
    caption: str
    scores: dict[str, tuple[float, float]]


@dataclass
class PublishedSet:
    """The pairs of a folder in the published form.

    Captions come from the `.jsonl` files in the pair's own folder or else the nearest one above it. A line belongs to
    a pair if it has the pair's index, and the seed of its file name; a line without `index` has its number, from 0.

    Args:
        folder: holds the `.npz` files.
        latent_shape: (C, H, W) that every noise must have.
        on_bad: called with the error of each bad line and file; may raise it to stop.
        all_files: whether to read sub-folders too, to any depth (`--all-file` of the reference).
        discard: whether a pair is rejected unless its first score improved (`--discard`).
        captions: one file of lines for all pairs.
        shifts: by sub-folder ("." is `folder` itself), what to add to the indices of the pairs in it: GPUs that
            collected side by side all count from 0.
        metrics: names of the scores in the lists; score_0, score_1 and so on when empty.

    Raises:
        UserError: no such folder, no pairs in it, no lines for them, or shifts of sub-folders that do not exist.
    """

    folder: Path
    latent_shape: Sequence[int]
    on_bad: Callable[[UserError], None]
    all_files: bool = False
    discard: bool = False
    captions: Path | None = None
    shifts: Mapping[str, int] = field(default_factory=dict)
    metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        folder, captions = self.folder, self.captions
        self._shift_of = {folder / name: shift for name, shift in self.shifts.items()}
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: give the folder of a published set")
        if captions and not captions.is_file():
            raise UserError(f"no file {captions}: give the JSON Lines file of the captions")
        for shifted in self._shift_of:
            if not shifted.is_dir():
                raise UserError(f"a shift is given for {shifted}, but there is no such folder")
        paths = filter(Path.is_file, folder.glob("**/*.npz" if self.all_files else "*.npz"))
        self.files = sorted(path.relative_to(folder) for path in paths)
        if not self.files:
            raise UserError(f"no .npz files in {folder}: give their folder, or --all-file for sub-folders")
        self._lines: dict[Path, dict[int, list[Line]]] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """What decides which pairs an import makes of the set, as JSON values."""
        names = "\n".join(map(str, self.files)).encode("utf-8", "surrogateescape")
        return {
            "files": hashlib.sha256(names).hexdigest()[:16],
            "discard": self.discard,
            "shifts": dict(self.shifts),
            "metrics": list(self.metrics),
        }

    def read(self, number: int) -> Result:
        """The pair of a file, without embeddings, or a failure that names the file.

        Its index is the file's number: those of the set need not be unique. Its tag "source" is the file's path.
        """
        name = self.files[number]
        try:
            noise, golden, index = _arrays(self.folder / name, tuple(self.latent_shape))
            line, seed = self._line(name, index)
            if self.discard and not line.scores:
                raise ValueError("its line has no scores to discard by")
            standard, improved = next(iter(line.scores.values()), (0.0, 0.0))
            accepted = not self.discard or improved > standard
            prompt = Prompt(number, line.caption, seed, {"source": _printable(name)})
            return NoisePair(prompt, noise, golden, None, line.scores, accepted, SEARCH)
        except UserError:
            raise  # not about this file
        except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on damaged bytes
            bad = _bad(self.folder / name, error)
        self.on_bad(bad)
        return Failure(number, _printable(name), str(bad))

    def _line(self, name: Path, index: int) -> tuple[Line, int]:
        """The line of a pair, and the pair's seed."""
        path = self.folder / name
        index += self._shift_of.get(path.parent, 0)
        named = re.fullmatch(r"[0-9]+_([0-9]{1,19})", name.stem)
        seed = int(named[1]) if named else None
        lines = self._lines_for(path.parent).get(index, [])
        if not lines:
            raise ValueError(f"no line has its index {index} (--shift FOLDER=N shifts it)")
        matching = [line for line in lines if seed is None or line.seed in (None, seed)]
        if not matching:
            raise ValueError(f"line {index} has seed {lines[0].seed}, not {seed} (--shift FOLDER=N shifts its index)")
        line = matching[-1]
        if any(other != line for other in matching):
            raise ValueError(f"several lines have its index {index}")
        seed = line.seed if seed is None else seed
        if seed is None:
            raise ValueError("neither its name nor its line gives a seed")
        return line, seed

    def _lines_for(self, folder: Path) -> dict[int, list[Line]]:
        if folder not in self._lines:
            files = [self.captions] if self.captions else sorted(filter(Path.is_file, folder.glob("*.jsonl")))
            if not files and folder == self.folder:
                raise UserError(f"no .jsonl file in {folder}: give one with --captions FILE")
            self._lines[folder] = {} if files else self._lines_for(folder.parent)
            for line in (line for file in files for line in self._read_lines(file)):
                self._lines[folder].setdefault(line.index, []).append(line)
        return self._lines[folder]

    def _read_lines(self, file: Path) -> Iterator[Line]:
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, text in enumerate(lines):
                if not text.strip():
                    continue
                try:
                    yield self._parse(number, parse_object(file, number + 1, text.strip()))
                except UserError as error:
                    self.on_bad(error)
                except (ValueError, TypeError, KeyError, OverflowError) as error:
                    self.on_bad(_bad(f"{file}, line {number + 1}", error))

    def _parse(self, number: int, row: Any) -> Line:
        if not isinstance(row, dict) or not isinstance(row.get("caption"), str) or not row["caption"].strip():
            raise ValueError("no caption")
        row["caption"].encode()  # bytes that are not UTF-8, or half a surrogate pair: tokenizers refuse them
        index, seed = row.get("index", number), row.get("seed")
        if type(index) is not int or type(seed) not in (int, type(None)):
            raise ValueError("its index or seed is not an integer")
        old, new = row.get("original_score_list", []), row.get("optimized_score_list", [])
        names = self.metrics or [f"score_{i}" for i in range(len(old))]
        if len(old) != len(new) or (old and len(old) != len(names)):
            raise ValueError(f"{len(old)} and {len(new)} scores of {len(names)} metrics")
        scores = {name: (float(x), float(y)) for name, x, y in zip(names, old, new, strict=False)}
        if not all(math.isfinite(score) for pair in scores.values() for score in pair):
            raise ValueError("its scores are not finite")
        return Line(index, seed, row["caption"].strip(), scores)


def import_set(
    published: PublishedSet,
    target: Path,
    config: Mapping[str, Any],
    encode: Encode,
    shard_size: int,
    batch_size: int,
) -> ShardIndex:
    """Write a published set as shards; a restart redoes only unfinished ones.

    Args:
        config: for the index, together with the set's own settings.
        encode: of the pipeline that the pairs were made with.
        shard_size: files per shard.
        batch_size: prompts encoded at once.

    Raises:
        UserError: the target cannot be written or holds other pairs; whatever the set's `on_bad` raises.
    """
    writer = ShardWriter(target, {**config, "search": SEARCH, "published": {**published.settings, "size": shard_size}})
    numbers = range(len(published.files))
    units = [numbers[i : i + shard_size] for i in numbers[::shard_size]]
    for failure in (failure for shard in writer.index.shards for failure in shard.failures):
        published.on_bad(UserError(failure.reason))  # of what was imported before
    bar = tqdm(desc="importing", total=len(numbers), unit="file")
    with bar, writer.taking([""] * len(units)) as taken:
        bar.update(sum(shard.tried for shard in writer.index.shards))
        for unit in taken:
            batches = (units[unit][i : i + batch_size] for i in range(0, len(units[unit]), batch_size))
            writer.write(unit, (result for batch in batches for result in _encoded(published, batch, encode)))
            bar.update(len(units[unit]))
    return writer.index


def _encoded(published: PublishedSet, numbers: Sequence[int], encode: Encode) -> Iterator[Result]:
    results = [published.read(number) for number in numbers]
    texts = [pair.prompt.text for pair in results if isinstance(pair, NoisePair) and pair.accepted]
    if texts:
        encoded = encode(texts)
        embeds = iter(encoded.embeds.float().cpu())
        pooled = None if encoded.pooled is None else iter(encoded.pooled.float().cpu())
    for result in results:
        if isinstance(result, NoisePair) and result.accepted:
            yield replace(result, embeds=next(embeds), pooled=None if pooled is None else next(pooled))
        else:
            yield result


def export_set(folder: Path, target: Path, metrics: Sequence[str] = ()) -> int:
    """Write the accepted pairs of a folder in the published form, numbered from 0; returns how many.

    `pairs.jsonl` is written last: with it, the set is whole.

    Args:
        target: a new or empty folder.
        metrics: which scores, in this order; all in alphabetical order when empty. `--discard` looks at the first.

    Raises:
        UserError: the pairs cannot be read, one lacks a metric, or the target holds files already.
    """
    index = ShardIndex.load(folder)
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise UserError(f"{target} is not empty: give a new folder")
    lines: list[bytes] = []
    with tqdm(desc="exporting", total=sum(shard.samples for shard in index.shards), unit="pair") as bar:
        for shard in index.shards:
            for sample in read_shard(folder, shard):
                pair = NoisePair.from_sample(sample)
                lines.append(_export_pair(pair, len(lines), target, metrics or sorted(pair.scores)))
                bar.update()
    with atomic_file(target / LINES) as file:
        file.writelines(lines)
    return len(lines)


def _export_pair(pair: NoisePair, index: int, target: Path, metrics: Sequence[str]) -> bytes:
    """Write the arrays of a pair; returns its line."""
    assert pair.noise is not None and pair.golden is not None  # the reader leaves rejected pairs out
    if missing := [name for name in metrics if name not in pair.scores]:
        raise UserError(f"pair {pair.key} has no score {missing[0]}: choose from {', '.join(sorted(pair.scores))}")
    noise, golden = (tensor[None].half().numpy() for tensor in (pair.noise, pair.golden))
    np.savez(target / f"{index}_{pair.prompt.seed}.npz", noise, golden, np.array(index))
    row = {
        "index": index,
        "seed": pair.prompt.seed,
        "caption": pair.prompt.text,
        "original_score_list": [pair.scores[name][0] for name in metrics],
        "optimized_score_list": [pair.scores[name][1] for name in metrics],
    }
    return json.dumps(row).encode() + b"\n"


def _arrays(path: Path, latent_shape: tuple[int, ...]) -> tuple[Tensor, Tensor, int]:
    """x_T and x'_T (C, H, W) float32 and the index of a file."""
    shape = (1, *latent_shape)
    with path.open("rb") as file:  # numpy leaves the files open that it cannot read
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is not an .npz archive")
        assert archive.zip is not None  # until it is closed
        if missing := [name for name in ARRAYS if name not in archive.files]:
            raise ValueError(f"it has no {missing[0]}")
        if any(member.file_size > 8 * math.prod(shape) + 4096 for member in archive.zip.infolist()):
            raise ValueError(f"its arrays are larger than {format_shape(shape)}")  # a few bytes may unpack to terabytes
        noise, golden = (_latents(archive[name], name, shape) for name in ARRAYS[:2])
        index = archive[ARRAYS[2]]
    if index.size != 1 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError("its arr_2 is not one integer")
    return noise, golden, int(index.item())


def _latents(array: np.ndarray, name: str, shape: tuple[int, ...]) -> Tensor:
    if array.shape != shape or array.dtype not in (np.float16, np.float32):
        raise ValueError(f"its {name} is {array.dtype} {format_shape(array.shape)}, not float16 {format_shape(shape)}")
    with np.errstate(over="ignore"):
        half = array[0].astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(f"its {name} is not finite in float16")
    return torch.from_numpy(half.astype(np.float32))


def _bad(path: Path | str, error: Exception) -> UserError:
    return UserError(f"{_printable(path)}: {one_line(error) or type(error).__name__}")


def _printable(path: Path | str) -> str:
    """A path on one line, whatever bytes its name has."""
    return one_line(os.fsencode(path).decode("utf-8", "replace"), None)
