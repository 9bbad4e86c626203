"""Any line of a prompt file ends as a pair, as a recorded failure, or as a one-line error that names it."""

import json
import random

import pytest

from golden_noise.collecting.job import collect
from golden_noise.errors import UserError
from golden_noise.pairs import ShardIndex
from golden_noise.pairs.verify import problems
from golden_noise.prompts import read_prompts

PIECES = [
    "a red circle", "two crosses", "a photo of", ",", '"', "'", "\\", "\t", "{", "}", "[", "]", ":", "caption", "seed",
    "null", "NaN", "1e999", "-", "\x00", "\x1b[31m", "\u202e", "\ufeff", "\U0001f600", "\ud800", "\\ud800", "e\u0301",
    "\u3042", "\u0e33", "<|endoftext|>", "<|startoftext|>", "%s", "${jndi}", "{0}", "../", "<script>", "\u2028", "\x85",
    "\x0b", "\r", "a" * 500, "\U0010ffff", "\ue000",
]  # fmt: skip
HEADERS = {".csv": b"caption,seed\n", ".tsv": b"caption\tseed\n"}
SEEDS = [0, 7, -1, 2**31, 2**63, 2**64, 10**30, 1.5, True, None, "7", "x", [], {}]


def fuzzed_line(rng: random.Random) -> tuple[str, bytes]:
    """The kind of a file and one line for it."""
    text = "".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 8)))
    kind = rng.choice([".txt", ".csv", ".tsv", ".jsonl", ".json"])
    if kind in (".json", ".jsonl") and rng.random() < 0.7:
        row = {
            rng.choice(["caption", "prompt", "Text", "x"]): rng.choice([text, text, None, 3]),
            "seed": rng.choice(SEEDS),
        }
        row |= {"category": rng.choice([text, 1, None])} if rng.random() < 0.3 else {}
        text = rng.choice([json.dumps, repr])(row)
    line = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        place = rng.randrange(len(line) + 1)
        line = line[:place] + rng.randbytes(rng.randrange(1, 4)) + line[place:]
    return kind, line


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_fuzzed_lines(compose_job, tmp_path, count):
    rng, prompts, refused = random.Random(count), [], 0
    for _ in range(count):
        kind, line = fuzzed_line(rng)
        file = tmp_path / f"line{kind}"
        file.write_bytes(
            (b"caption,seed\n" if kind == ".csv" else b"caption\tseed\n" if kind == ".tsv" else b"") + line
        )
        try:
            prompts += read_prompts(str(file))
        except UserError as error:
            assert "\n" not in str(error) and str(file) in str(error)
            refused += 1
    assert count / 10 < refused < 2 * count / 3
    rows = [json.dumps({"caption": prompt.text, "seed": prompt.seed}) + "\n" for prompt in prompts]
    (tmp_path / "all.jsonl").write_text("".join(rows))
    options = ["prompts=file", f"prompts.path={tmp_path}/all.jsonl", "pipeline.steps=3"]
    collect(compose_job("collect", *options))
    index = ShardIndex.load(tmp_path / "pairs")
    assert sum(shard.tried for shard in index.shards) == len(prompts)
    assert all("\n" not in failure.reason for shard in index.shards for failure in shard.failures)
    assert list(problems(tmp_path / "pairs")) == []
    print(
        f"{count} lines: {refused} refused, {len(prompts)} prompts, {sum(len(s.failures) for s in index.shards)} failed"
    )
