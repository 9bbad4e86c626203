"""How fast and in how much memory training reads noise pairs: `python benchmarks/streaming.py`, `--help` for the sizes.

Writes pairs of 4x128x128 to a temporary folder (0.52 MB each in two forms; TMPDIR chooses where), prints the tables of
benchmarks/README.md, and removes them. Compare the ratios, which are measured in one run.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch

from golden_noise.npnet import NPNet
from golden_noise.pairs import NoisePair, NoisePairDataModule, ShardWriter
from golden_noise.prompts import Prompt

LATENTS, EMBEDS = (4, 128, 128), (77, 2048)
BATCH, SHARD = 64, 512
BATCHES = 300  # that memory is watched for


def make_pairs(
    start: int, count: int, embeds: tuple[int, ...] | None = None, latents: tuple[int, ...] = LATENTS
) -> Iterator[NoisePair]:
    """Pairs with random numbers of these shapes; without embeddings if they have none."""
    rng = np.random.default_rng(start)
    for index in range(start, start + count):
        noise = torch.from_numpy(rng.standard_normal(latents, dtype=np.float32))
        golden = noise + 0.1 * noise.roll(1, -1)
        text = torch.from_numpy(rng.standard_normal(embeds, dtype=np.float32)) if embeds else None
        yield NoisePair(Prompt(index, f"a photo of object {index}", index), noise, golden, text, {}, True, {})


def write_shards(
    folder: Path, count: int, embeds: tuple[int, ...] | None = None, latents: tuple[int, ...] = LATENTS
) -> None:
    writer = ShardWriter(folder, {"pipeline": {"name": "benchmark"}})
    for unit, start in enumerate(range(0, count, SHARD)):
        writer.write(unit, make_pairs(start, min(SHARD, count - start), embeds, latents))


def write_npz(folder: Path, count: int) -> None:
    """The published form: a file for each pair."""
    folder.mkdir()
    for pair in make_pairs(0, count):
        noise, golden = (np.asarray(x, np.float16)[None] for x in (pair.noise, pair.golden))
        np.savez(folder / f"{pair.prompt.index}_{pair.prompt.seed}.npz", noise, golden, np.array(pair.prompt.index))


def forget(folder: Path) -> None:
    """Drop the files from the system's cache."""
    os.sync()
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def data_module(folder: Path, workers: int, **options: Any) -> NoisePairDataModule:
    chosen: dict[str, Any] = {"embeddings": "encode", "encode": lambda prompts: None, "val_fraction": 0.02} | options
    data = NoisePairDataModule(folder, LATENTS, EMBEDS, batch_size=BATCH, num_workers=workers, **chosen)
    data.setup("fit")
    return data


def epoch_of(loader: Any) -> int:
    return sum(len(batch["key"]) for batch in loader)


def read_bytes(folder: Path) -> int:
    """Nothing but the bytes, into the same megabyte again and again."""
    buffer = bytearray(1 << 20)
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return 0


def read_members(folder: Path) -> int:
    """The members of the tar files as bytes objects, not decoded."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path, "r|") as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                content.read()
    return 0


def load_npz(folder: Path) -> list[tuple[np.ndarray, ...]]:
    """The published way: everything into memory."""
    loaded = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            loaded.append(tuple(arrays[name] for name in ("arr_0", "arr_1", "arr_2")))
    return loaded


def npz_epoch(loaded: list[tuple[np.ndarray, ...]]) -> int:
    order = np.random.default_rng(0).permutation(len(loaded))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        for part in (0, 1):
            torch.from_numpy(np.concatenate([loaded[i][part] for i in order[start : start + BATCH]]))
    return len(order)


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def throughput(folder: Path, count: int, workers: int, repeats: int) -> None:
    write_shards(folder / "pairs", count)
    write_npz(folder / "npz", count)
    data = data_module(folder / "pairs", workers)
    loader = data.train_dataloader()
    loaded: list = []
    ways: dict[str, tuple[Path, Callable[[], Any]]] = {
        "bytes of the tar files": (folder / "pairs", lambda: read_bytes(folder / "pairs")),
        "members of the tar files": (folder / "pairs", lambda: read_members(folder / "pairs")),
        "NoisePairDataModule, first epoch (hashes)": (
            folder / "pairs",
            lambda: epoch_of(data_module(folder / "pairs", workers).train_dataloader()),
        ),
        "NoisePairDataModule, later epochs": (folder / "pairs", lambda: epoch_of(loader)),
        ".npz, first epoch (everything into memory)": (folder / "npz", lambda: loaded.extend(load_npz(folder / "npz"))),
        ".npz, later epochs": (folder / "npz", lambda: npz_epoch(loaded)),
    }
    epoch_of(loader)
    print(f"\n{count:,} pairs, {workers} workers, medians of {repeats} rounds in turn")
    print("| read | pairs/s from the disk | of members | pairs/s from memory | of bytes | of members |")
    print("| --- | --- | --- | --- | --- | --- |")
    times: dict[tuple[str, bool], list[float]] = {(name, cold): [] for name in ways for cold in (True, False)}
    for _ in range(repeats):
        for cold in (True, False):
            for name, (files, call) in ways.items():
                if name.startswith(".npz, first"):
                    loaded.clear()
                if cold:
                    forget(files)
                times[name, cold].append(seconds(call))
    rates = {key: count / statistics.median(values) for key, values in times.items()}
    bytes_, members = list(ways)[:2]
    for name in ways:
        cells = [
            f"{rates[name, True]:,.0f}",
            f"{rates[name, True] / rates[members, True]:.2f}",
            f"{rates[name, False]:,.0f}",
            f"{rates[name, False] / rates[bytes_, False]:.2f}",
            f"{rates[name, False] / rates[members, False]:.2f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def resident(call: Callable[[], Any]) -> float:
    """Megabytes that a call takes at its peak, beyond what a fresh process begins with; its workers' are counted."""
    multiprocessing.set_start_method("fork", force=True)  # as it is where no parent was spawned
    before = proportional()
    most = 0.0
    for _ in call():
        most = max(most, proportional())
    return (most - before) / 1e6


def proportional() -> float:
    """Bytes of this process and its children; a page that several have counts once."""
    process = psutil.Process()
    return sum(one.memory_full_info().pss for one in (process, *process.children(recursive=True)))


def streamed(folder: Path, workers: int) -> Iterator[None]:
    """As many batches of every set, in several epochs of a small one: a peak is higher the longer one waits for it."""
    data = data_module(folder, workers)
    loader = data.train_dataloader()
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for _ in itertools.islice(batches, BATCHES):
        yield
    data.teardown("fit")


def published(folder: Path) -> Iterator[None]:
    loaded = load_npz(folder)
    yield
    npz_epoch(loaded)
    yield


def alone(call: Callable[..., Any], *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(call, *arguments).result()


def memory(folder: Path, counts: list[int], npz_most: int, workers: int) -> None:
    print("\n| pairs | NoisePairDataModule, MB | .npz, MB per process |\n| --- | --- | --- |")
    per_pair = 0.0
    for count in counts:
        shards, files = folder / f"pairs-{count}", folder / f"npz-{count}"
        write_shards(shards, count)
        ours = alone(resident, partial(streamed, shards, workers))
        if count <= npz_most:
            write_npz(files, count)
            theirs = alone(resident, partial(published, files))
            per_pair = theirs / count
            cell = f"{theirs:,.0f}"
        else:
            cell = f"({per_pair * count:,.0f})"
        print(f"| {count:,} | {ours:,.0f} | {cell} |", flush=True)
        for path in [*shards.iterdir(), *(files.iterdir() if files.exists() else ())]:
            path.unlink()


def text_encoders() -> Callable[[list[str]], Any]:
    """SDXL's two text encoders with random weights: the time depends on their sizes only."""
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = [(768, 3072, 12, 12), (1280, 5120, 32, 20)]
    models = [
        CLIPTextModel(
            CLIPTextConfig(
                hidden_size=width, intermediate_size=inner, num_hidden_layers=depth, num_attention_heads=heads
            )
        ).eval()
        for width, inner, depth, heads in sizes
    ]

    @torch.inference_mode()
    def encode(prompts: list[str]) -> Any:
        tokens = torch.arange(77 * len(prompts)).reshape(-1, 77) % 49000
        return SimpleNamespace(embeds=torch.cat([model(tokens).last_hidden_state for model in models], dim=-1))

    return encode


def processor_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def workers_cost(folder: Path, count: int, most: int, repeats: int) -> None:
    """What more workers give, and the processor time of a pair, which says what they give with a core for each."""
    print("\n| embeddings | workers | pairs/s | ms of processor time per pair: workers | main process |")
    print("| --- | --- | --- | --- | --- |")
    me = psutil.Process()
    for name in ("encode", "stored"):
        shards = folder / name
        write_shards(shards, count, embeds=EMBEDS if name == "stored" else None)
        for workers in range(1, most + 1):
            data = data_module(shards, workers, embeddings=name)
            loader = data.train_dataloader()
            pairs = epoch_of(loader)
            children = me.children()
            before = [processor_seconds(some) for some in (children, [me])]
            rate = statistics.median(pairs / seconds(partial(epoch_of, loader)) for _ in range(repeats))
            after = [processor_seconds(some) for some in (children, [me])]
            costs = [1000 * (b - a) / pairs / repeats for a, b in zip(before, after, strict=True)]
            print(f"| {name} | {workers} | {rate:,.0f} | {costs[0]:.2f} | {costs[1]:.2f} |", flush=True)
            data.teardown("fit")


def embeddings(folder: Path, count: int, workers: int) -> None:
    """Stored or encoded: bytes of a pair, reading, and a step of the published network."""
    print("\n| embeddings | bytes per pair | pairs/s read | s per batch of 8: embeddings | NPNet's step | both |")
    print("| --- | --- | --- | --- | --- | --- |")
    npnet = NPNet(LATENTS, EMBEDS, backbone="swin_tiny_patch4_window7_224", backbone_size=224)
    optimizer = torch.optim.AdamW(npnet.parameters())

    def step(batch: dict[str, Any]) -> None:
        optimizer.zero_grad()
        (npnet(batch["noise"], batch["embeds"]) - batch["golden"]).square().mean().backward()
        optimizer.step()

    for name in ("stored", "encode"):
        shards = folder / f"embeds-{name}"
        write_shards(shards, count, embeds=EMBEDS if name == "stored" else None)
        encode = text_encoders() if name == "encode" else None
        data = data_module(shards, workers, embeddings=name, encode=encode, embeds_cache=0)
        loader = data.train_dataloader()
        epoch_of(loader)
        rate = statistics.median(count / seconds(partial(epoch_of, loader)) for _ in range(3))
        raw = next(iter(loader))
        few = {key: value[:8] for key, value in raw.items()}
        ready = [seconds(partial(data.on_after_batch_transfer, few, 0)) for _ in range(3)]
        batch = data.on_after_batch_transfer(few, 0)
        steps = [seconds(partial(step, batch)) for _ in range(3)]
        size = sum(path.stat().st_size for path in shards.glob("*.tar")) / count
        encoding, stepping = statistics.median(ready), statistics.median(steps)
        print(f"| {name} | {size:,.0f} | {rate:,.0f} | {encoding:.3f} | {stepping:.2f} | {encoding + stepping:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4096, help="for throughput")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 60_000], help="for memory")
    parser.add_argument("--npz-most", type=int, default=10_000, help="larger .npz sets are extrapolated, in brackets")
    parser.add_argument("--only", choices=["throughput", "memory", "workers", "embeddings"])
    options = parser.parse_args()
    parts: dict[str, Callable[[Path], None]] = {
        "throughput": lambda folder: throughput(folder, options.pairs, options.workers, options.repeats),
        "memory": lambda folder: memory(folder, options.sizes, options.npz_most, options.workers),
        "workers": lambda folder: workers_cost(folder, options.pairs, options.workers, options.repeats),
        "embeddings": lambda folder: embeddings(folder, 512, options.workers),
    }
    print(f"torch {torch.__version__}, {len(os.sched_getaffinity(0))} cores")
    for name in [options.only] if options.only else parts:
        with tempfile.TemporaryDirectory(prefix="golden-noise-") as folder:
            parts[name](Path(folder))


if __name__ == "__main__":
    main()
