"""Checking the shards of a folder against its index and against each other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from golden_noise.errors import UserError
from golden_noise.pairs.entry import ShardEntry
from golden_noise.pairs.index import INDEX_NAME, ShardIndex
from golden_noise.pairs.pair import REDO, NoisePair, malformed, prompt_hash
from golden_noise.pairs.reader import RawSample, format_shape, read_shard


def problems(folder: Path) -> Iterator[str]:
    """One line for every bad file of a folder, as soon as it is found; shows a progress bar on stderr.

    A shard is bad if its size, checksum, counts or prompts differ from the index, if a sample is not as
    `NoisePair.to_sample` writes it (shape, float16, finite), if a key occurs twice, if its pairs differ from the
    index's configuration or from earlier pairs in shapes, metrics or settings of the search, or if the index does not
    list it. Files are read, never changed.
    """
    try:
        index = ShardIndex.load(folder)
    except UserError as error:
        yield str(error)
        return
    comparison = _Comparison(index.config)
    with tqdm(desc="verifying", total=sum(e.bytes for e in index.shards), unit="B", unit_scale=True) as bar:
        for entry in index.shards:
            try:
                entry.verify(folder)
                comparison.add(folder, entry)
            except UserError as error:
                yield str(error)
            bar.update(entry.bytes)
    known = {entry.name for entry in index.shards}
    for path in sorted(folder.glob("pairs-*.tar")):
        if path.name not in known:
            yield f"shard {path} is not in {INDEX_NAME}: {REDO}, or delete it if nothing is collecting"


class _Comparison:
    """What all pairs of a folder must share, and the keys that must be unique."""

    def __init__(self, config: dict[str, Any]):
        self.shards: dict[str, str] = {}  # by sample key
        self.common: dict[str, Any] = {"search": config["search"]} if "search" in config else {}
        pipeline = config.get("pipeline")
        if isinstance(pipeline, dict):
            shapes = {"noise": pipeline.get("latent_shape"), "embeds": pipeline.get("embeds_shape")}
            self.common |= {name: format_shape(shape) for name, shape in shapes.items() if isinstance(shape, list)}

    def add(self, folder: Path, entry: ShardEntry) -> None:
        """Read and compare a shard; errors name the file and, if it is one sample's fault, its key."""
        for sample in read_shard(folder, entry, rejected=True):
            self._add_pair(sample, NoisePair.from_sample(sample), entry.name)

    def _add_pair(self, sample: RawSample, pair: NoisePair, shard: str) -> None:
        if pair.accepted and prompt_hash(pair.prompt.text) != sample["__prompt__"]:
            raise malformed(sample, f"its prompt is not the one in {INDEX_NAME}")
        if pair.key in self.shards:
            raise malformed(sample, f"{self.shards[pair.key]} has this key too")
        self.shards[pair.key] = shard
        traits: dict[str, Any] = {"search": pair.search, "metrics": ", ".join(sorted(pair.scores)) or "none"}
        for name in ("noise", "embeds", "pooled") if pair.accepted else ():
            tensor = getattr(pair, name)
            traits[name] = "missing" if tensor is None else format_shape(tensor.shape)
        for name, value in traits.items():
            expected = self.common.setdefault(name, value)
            if value != expected:
                raise malformed(sample, f"{name} is {value}, not {expected}")
