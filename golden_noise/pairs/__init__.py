"""Noise pairs on disk: written in shards by the collection, streamed by the training."""

from golden_noise.pairs.datamodule import NoisePairDataModule
from golden_noise.pairs.entry import ShardEntry
from golden_noise.pairs.index import ShardIndex
from golden_noise.pairs.modes import prepare
from golden_noise.pairs.pair import Failure, NoisePair, Result, prompt_hash, prompts_digest
from golden_noise.pairs.reader import read_shard
from golden_noise.pairs.upload import Upload
from golden_noise.pairs.writer import ShardWriter, shard_name, write_shard

__all__ = [
    "Failure",
    "NoisePair",
    "NoisePairDataModule",
    "Result",
    "ShardEntry",
    "ShardIndex",
    "ShardWriter",
    "Upload",
    "prepare",
    "prompt_hash",
    "prompts_digest",
    "read_shard",
    "shard_name",
    "write_shard",
]
