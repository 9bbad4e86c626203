"""The collect job: repeatable, restartable at any moment, and particular about its folder."""

import hashlib
import itertools
import json
import os
import random
import resource
import signal
import sys
import tarfile
import time

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from golden_noise.cli.pairs import main
from golden_noise.cli.validation import check
from golden_noise.collecting.job import collect, collect_job, provenance
from golden_noise.errors import UserError
from golden_noise.pairs import NoisePair, ShardIndex, ShardWriter, read_shard
from golden_noise.pairs.verify import problems
from tests.forked import CONTEXT, run_script

SHARDS = ["collection.shard_size=4", "collection.batch_size=4", "pipeline.steps=3"]
SMALL = ["prompts.count=12", *SHARDS]


def contents(folder):
    """Checksum of every file that counts."""
    names = [*folder.glob("pairs-*.tar"), folder / "index.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in names}


def test_collecting_twice_gives_identical_bytes(compose_job, tmp_path):
    for name in ("one", "two"):
        collect(compose_job("collect", *SMALL, f"data_dir={tmp_path}/{name}"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    index = ShardIndex.load(tmp_path / "one")
    assert [shard.samples for shard in index.shards] == [4, 4, 4]
    pairs = [NoisePair.from_sample(s) for shard in index.shards for s in read_shard(tmp_path / "one", shard)]
    assert [pair.prompt.index for pair in pairs] == list(range(12))
    assert all((pair.noise - pair.golden).abs().max() > 1e-3 for pair in pairs)


def test_selection_keeps_only_improvements_and_records_all_scores(compose_job, tmp_path):
    options = ["collection.select_by=soft", "~metric.reward"]
    collect(compose_job("collect", *SMALL, *options))
    index = ShardIndex.load(tmp_path / "pairs")
    assert sum(shard.samples + shard.rejected for shard in index.shards) == 12
    kept = [NoisePair.from_sample(s) for shard in index.shards for s in read_shard(tmp_path / "pairs", shard)]
    assert all(pair.scores["soft"][1] > pair.scores["soft"][0] for pair in kept)
    assert sum(shard.rejected for shard in index.shards) > 0


def test_embeddings_can_be_left_out(compose_job, tmp_path):
    for name, option in (("with", "true"), ("without", "false")):
        collect(compose_job("collect", *SMALL, f"data_dir={tmp_path}/{name}", f"collection.store_embeds={option}"))
    sets = [tmp_path / name for name in ("with", "without")]
    kept, left_out = ([p for e in ShardIndex.load(s).shards for p in read_shard(s, e)] for s in sets)
    for full, bare in zip(kept, left_out, strict=True):
        assert full.keys() - bare.keys() == {"embeds.npy", "pooled.npy"}
        assert all(bare[name] == full[name] for name in ("json", "noise.npy", "golden.npy"))


@pytest.mark.parametrize(
    ("select_by", "kept"),
    [
        ("{soft: 1, strict: 2}", lambda gain: gain["soft"] + 2 * gain["strict"] > 0),
        ("[soft, reward]", lambda gain: gain["soft"] > 0 and gain["reward"] > 0),
    ],
)
def test_selection_by_several_metrics(compose_job, tmp_path, select_by, kept):
    config = compose_job("collect", *SMALL, f"collection.select_by={select_by}")
    check(config)
    collect(config)
    lines = []
    for tar in sorted((tmp_path / "pairs").glob("pairs-*.tar")):
        with tarfile.open(tar) as shard:
            lines += [json.load(shard.extractfile(each)) for each in shard if each.name.endswith(".json")]
    assert len(lines) == 12
    for line in lines:
        assert line["scores"].keys() == {"strict", "soft", "reward"}  # of kept and of rejected pairs
        gain = {name: golden - standard for name, (standard, golden) in line["scores"].items()}
        assert line["accepted"] is kept(gain)
    collect(config)  # the record of the selection is read back as it was written


def test_a_metrics_missing_file_is_noticed_first(compose_job):
    with pytest.raises(UserError, match=r"metric.reward.model=/no/such/folder"):
        check(compose_job("collect", "metric.reward.model=/no/such/folder"))


def test_other_settings_are_refused(compose_job):
    collect(compose_job("collect", *SMALL))
    with pytest.raises(UserError, match=r"search.rounds=1.*search.rounds=2"):
        collect(compose_job("collect", *SMALL, "search.rounds=2"))


def test_a_mistake_before_the_first_pair_does_not_bind_the_folder(compose_job):
    with pytest.raises(InstantiationException, match=r"search\.rounds=0"):
        collect(compose_job("collect", *SMALL, "search.rounds=0"))
    collect(compose_job("collect", *SMALL))


def test_a_finished_set_is_left_alone(compose_job, tmp_path):
    config = compose_job("collect", *SMALL)
    collect(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").glob("[!.]*")}
    collect(config)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "pairs").glob("[!.]*")}


def test_with_more_prompts_the_old_set_is_completed_to_the_one_collected_at_once(compose_job, tmp_path):
    """Of 10 prompts the last shard has 2, of 15 it has 4: that one is collected again."""
    few, more = [*SMALL, "prompts.count=10"], [*SMALL, "prompts.count=15"]
    collect(compose_job("collect", *few))
    stamp = (tmp_path / "pairs/pairs-000000.tar").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"prompts\.count=10.*prompts\.count=15"):
        collect(compose_job("collect", *more))
    collect_job(compose_job("collect", *more, "mode=extend"))
    assert (tmp_path / "pairs/pairs-000000.tar").stat().st_mtime_ns == stamp
    collect(compose_job("collect", *more, f"data_dir={tmp_path}/once"))
    assert contents(tmp_path / "pairs") == contents(tmp_path / "once")
    with pytest.raises(UserError, match=r"pairs-000002\.tar was collected from other prompts"):
        collect_job(compose_job("collect", *few, "mode=extend"))


def test_a_file_of_prompts_may_grow_but_not_change(compose_job, tmp_path):
    file = tmp_path / "prompts.txt"
    captions = [f"a photo of thing {number}" for number in range(12)]
    config = compose_job("collect", *SHARDS, "prompts=file", f"prompts.path={file}")
    extend = compose_job("collect", *SHARDS, "prompts=file", f"prompts.path={file}", "mode=extend")
    file.write_text("\n".join(captions[:6]))
    collect(config)
    before = contents(tmp_path / "pairs")
    file.write_text("\n".join(captions))
    with pytest.raises(UserError, match="from fewer prompts: add mode=extend"):
        collect(config)
    for change in (["another", *captions[1:]], [*captions[:5], "another", *captions[6:]], captions[:5]):
        file.write_text("\n".join(change))
        for refused in (config, extend):
            with pytest.raises(UserError, match="was collected from other prompts"):
                collect_job(refused)
    assert contents(tmp_path / "pairs") == before
    file.write_text("\n".join(captions))
    collect_job(extend)
    assert [shard.tried for shard in ShardIndex.load(tmp_path / "pairs").shards] == [4, 4, 4]


def test_overwriting_deletes_pairs_and_nothing_else(compose_job, tmp_path):
    collect(compose_job("collect", *SMALL))
    (tmp_path / "pairs/notes.txt").write_text("mine")
    options = [*SMALL, "prompts.count=5", "search.rounds=2"]
    collect_job(compose_job("collect", *options, "mode=overwrite"))
    collect(compose_job("collect", *options, f"data_dir={tmp_path}/once"))
    assert contents(tmp_path / "pairs") == contents(tmp_path / "once")
    assert (tmp_path / "pairs/notes.txt").read_text() == "mine"


def test_pairs_are_not_overwritten_under_a_collector_or_an_import(compose_job, tmp_path):
    config = compose_job("collect", *SMALL, "mode=overwrite")
    collect(config)
    before = contents(tmp_path / "pairs")
    other = ShardWriter(tmp_path / "pairs", provenance(config))
    with other.taking([]), pytest.raises(UserError, match="another process works in"):
        collect_job(config)
    assert contents(tmp_path / "pairs") == before
    ShardWriter(tmp_path / "imported", {"published": {}}).index.save()
    with pytest.raises(UserError, match="were imported"):
        collect_job(compose_job("collect", *SMALL, "mode=overwrite", f"data_dir={tmp_path}/imported"))


@pytest.mark.parametrize(
    "url", ["https://host/pairs", "file:///pairs", "'pipe:ssh host cat pairs-{000000..000009}.tar'"]
)
def test_urls_are_not_collected_into(compose_job, tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    for job in (collect, collect_job):
        with pytest.raises(UserError, match="is not a folder"):
            job(compose_job("collect", *SMALL, f"data_dir={url}"))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_mode_is_one_line(compose_job):
    with pytest.raises(UserError, match="mode=append must be one of resume, extend"):
        check(compose_job("collect", "mode=append"))


def test_a_metric_that_cuts_prompts_says_so_once(compose_job, tmp_path, capsys):
    long = "a red circle above a blue square " * 4
    (tmp_path / "prompts.txt").write_text("\n".join([f"{long} {n}" for n in range(5)] + ["a red circle"] * 3))
    options = ["prompts=file", f"prompts.path={tmp_path}/prompts.txt", "~metric.strict", "~metric.soft"]
    collect(compose_job("collect", *SHARDS, *options, "collection.select_by=reward"))
    lines = [line for line in capsys.readouterr().err.splitlines() if "reads" in line]
    assert [line.strip() for line in lines] == [
        "note: reward reads 16 tokens: 5 of 6 prompts are longer, the rest of them is not judged"
    ]


def test_failures_are_counted_and_can_be_tried_again(compose_job, tmp_path, capsys):
    """The miniature's metric judges its own captions only."""
    file = tmp_path / "prompts.txt"
    file.write_text("a red circle\nnonsense\na blue square\na red cross\n" * 2 + "more nonsense\n")
    options = [*SHARDS, "prompts=file", f"prompts.path={file}", "collection.select_by=soft", "~metric.reward"]
    collect(compose_job("collect", *options))
    assert "9 tried" in (out := capsys.readouterr().out) and "3 failed: mode=retry" in out
    index = ShardIndex.load(tmp_path / "pairs")
    assert [[failure.index for failure in shard.failures] for shard in index.shards] == [[1], [5], [8]]
    assert index.shards[0].failures[0].reason.startswith("the shapes metric cannot judge 'nonsense'")
    main(["verify", str(tmp_path / "pairs")])
    assert "3 prompts failed" in capsys.readouterr().out
    main(["stats", str(tmp_path / "pairs")])
    assert "cannot judge 'nonsense'" in capsys.readouterr().out
    collect(compose_job("collect", *options))  # leaves them alone
    before = contents(tmp_path / "pairs")
    with (tmp_path / "pairs/pairs-000000.tar").open("ab") as tar:
        tar.write(b"?")
    collect_job(compose_job("collect", *options, "mode=retry"))
    assert contents(tmp_path / "pairs") == before


def test_when_every_prompt_fails_that_is_said_at_once(compose_job, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("nonsense\n" * 6)
    options = ["prompts=file", f"prompts.path={file}", "collection.select_by=soft", "~metric.reward"]
    with pytest.raises(UserError, match=r"the last 6 prompts all failed .* cannot judge 'nonsense'") as error:
        collect(compose_job("collect", *SHARDS, "collection.shard_size=8", *options))
    assert "\n" not in str(error.value)
    assert ShardIndex.load(tmp_path / "pairs").shards == []


def test_bad_shards_are_collected_again(compose_job, tmp_path):
    config, pairs = compose_job("collect", *SMALL), tmp_path / "pairs"
    collect(config)
    before = contents(pairs)
    (pairs / "pairs-000000.tar").unlink()
    os.truncate(pairs / "pairs-000001.tar", 1000)
    content = bytearray((pairs / "pairs-000002.tar").read_bytes())
    content[3000] ^= 1
    (pairs / "pairs-000002.tar").write_bytes(content)
    assert [f"pairs-00000{i}.tar" in line for i, line in enumerate(problems(pairs))] == [True] * 3
    collect(config)  # sees what is missing or has another size
    (line,) = problems(pairs)
    assert "pairs-000002.tar is damaged (its checksum" in line
    (pairs / "pairs-000002.tar").unlink()  # as the line advises
    collect(config)
    assert contents(pairs) == before


def test_clocks_and_time_zones_change_nothing(compose_job, tmp_path, monkeypatch):
    collect(compose_job("collect", *SMALL, f"data_dir={tmp_path}/whole"))
    now = itertools.count(2_000_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: next(now))  # an hour back at every look
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        collect(compose_job("collect", *SMALL))
        monkeypatch.setenv("TZ", "America/Adak")
        time.tzset()
        (tmp_path / "pairs/pairs-000001.tar").unlink()
        os.utime(tmp_path / "pairs/index.json", (0, 4_000_000_000))
        collect(compose_job("collect", *SMALL))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert contents(tmp_path / "pairs") == contents(tmp_path / "whole")


@pytest.mark.long
def test_two_processes_under_fabric_collect_the_same_set(compose_job, tiny_sdxl, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # their number moves the last bits of what a CPU computes
    options = [*SMALL, "collection.select_by=null", f"pipeline.model.source={tiny_sdxl}", "device=cpu"]
    command = ["collect.py", *options, f"data_dir={tmp_path}/two", f"paths.outputs={tmp_path}/outputs"]
    two = run_script(tmp_path, *command, "fabric.devices=2")
    assert two.returncode == 0 and "12 pairs of 12 tried" in two.stdout
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    collect(compose_job("collect", *SMALL))
    torch.set_num_threads(threads)
    assert contents(tmp_path / "pairs") == contents(tmp_path / "two")
    wrong = [*command, "fabric.devices=2", "search.rounds=2"]
    two = run_script(tmp_path, *wrong)
    (line,) = (line for line in two.stderr.splitlines() if line.startswith("error: "))
    assert two.returncode == 2 and "search.rounds=2" in line and "Traceback" not in two.stderr


class Processes:
    """Collectors in processes of their own, of a server that imports the heavy libraries once."""

    def __init__(self):
        self.run(int)  # waits for the libraries

    def start(self, function, *arguments):
        process = CONTEXT.Process(target=function, args=arguments)
        process.start()
        return process

    def run(self, function, *arguments):
        process = self.start(function, *arguments)
        process.join()
        assert process.exitcode == 0


@pytest.fixture(scope="module")
def processes():
    return Processes()


@pytest.fixture
def plain_job(compose_job):
    """12 units of a prompt each, as plain containers that another process can be given."""
    options = ["prompts.count=12", "collection.shard_size=1", "collection.batch_size=1", "pipeline.steps=3"]
    return lambda folder: OmegaConf.to_container(compose_job("collect", *options, f"data_dir={folder}"), resolve=True)


def _collect(plain, largest_file=None):
    torch.set_num_threads(1)
    if largest_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error instead of a death
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    try:
        collect(OmegaConf.create(plain))
    except UserError as error:
        sys.exit(str(error).count("\n") + 3)


@pytest.mark.parametrize(
    ("kills", "ranks"),
    [
        (5, 1),
        (4, 2),
        (60, 1),
        (60, 2),
    ],
)
@pytest.mark.slow  # tests/chaos has a faster one
def test_killed_at_random_moments_the_set_comes_out_the_same(processes, plain_job, tmp_path, kills, ranks):
    """Each set is collected by processes that are killed until one comes to the end of it; then the next set."""
    start = time.perf_counter()
    processes.run(_collect, plain_job(tmp_path / "whole"))
    duration = time.perf_counter() - start

    rng, killed, sets = random.Random(ranks), 0, 0
    while killed < kills:
        folder = tmp_path / f"set{(sets := sets + 1)}"
        finished = False
        while not finished:
            victims = [processes.start(_collect, plain_job(folder)) for _ in range(ranks)]
            for victim in rng.sample(victims, len(victims)):  # a second one goes on alone for a moment
                victim.join(rng.uniform(0.05, 0.7 / ranks) * duration)
                victim.kill()
                victim.join()
            codes = [victim.exitcode for victim in victims]
            killed += codes.count(-signal.SIGKILL)
            finished = 0 in codes
            assert set(codes) <= {0, -signal.SIGKILL}
        assert contents(folder) == contents(tmp_path / "whole")
        processes.run(_collect, plain_job(folder))
        assert not list(folder.glob(".pairs*"))
    print(f"{killed} kills of {ranks} processes, {sets} sets")


def test_two_collectors_of_a_folder_share_its_work(processes, plain_job, tmp_path):
    processes.run(_collect, plain_job(tmp_path / "one"))
    both = [processes.start(_collect, plain_job(tmp_path / "two")) for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_full_disk_is_one_line_and_loses_nothing(processes, plain_job, tmp_path):
    processes.run(_collect, plain_job(tmp_path / "pairs"))
    before = contents(tmp_path / "pairs")
    (tmp_path / "pairs/pairs-000010.tar").unlink()
    full = processes.start(_collect, plain_job(tmp_path / "pairs"), 9000)  # bytes that fit, less than a shard
    full.join()
    assert full.exitcode == 3  # a UserError of one line
    assert contents(tmp_path / "pairs").items() == before.items() - {("pairs-000010.tar", before["pairs-000010.tar"])}
    processes.run(_collect, plain_job(tmp_path / "pairs"))
    assert contents(tmp_path / "pairs") == before
