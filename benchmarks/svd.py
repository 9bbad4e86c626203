"""What the SVD branch costs, and how exact its ways to decompose are: `python benchmarks/svd.py`.

Prints the tables of benchmarks/README.md; compare the ratios, which are measured in one run.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from golden_noise.npnet import NPNet, decompose
from golden_noise.npnet.core.svd import decompose_raw, to_matrix

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LATENTS = {"4x8x8": (4, 8, 8), "4x128x128": (4, 128, 128)}
NETWORKS: dict[str, dict[str, Any]] = {
    "4x8x8": {
        "embeds_shape": (16, 128),
        "backbone": "vit_tiny_patch16_224",
        "backbone_args": {
            "img_size": 8, "patch_size": 1, "in_chans": 4, "embed_dim": 96, "depth": 3, "num_heads": 4,
        },
    },
    "4x128x128": {
        "embeds_shape": (77, 2048),
        "backbone": "swin_tiny_patch4_window7_224",
        "backbone_size": 224,
    },
}  # fmt: skip
# decompose rounds its result to float32, so its error cannot be below 1e-8.
DECOMPOSITIONS: dict[str, Callable[[Tensor], Any]] = {
    "eigh of the Gram, float64 (`decompose`)": decompose,
    "eigh of the Gram, float32": lambda x: (torch.linalg.eigh(to_matrix(x) @ to_matrix(x).mT)[1].flip(-1),),
    "svd, float32": lambda x: torch.linalg.svd(to_matrix(x), full_matrices=False),
    "both, for raw signs (`decompose_raw`)": decompose_raw,
    "svd, float64": lambda x: torch.linalg.svd(to_matrix(x.double()), full_matrices=False),
}
CONVENTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum weighted by 1, 2, ... (`fix_signs`)": lambda u: (u.mT * torch.arange(1, u.shape[1] + 1)).sum(-1),
    "sum": lambda u: u.sum(dim=1),
    "sum of cubes": lambda u: u.pow(3).sum(dim=1),
    "largest component": lambda u: u.gather(1, u.abs().argmax(1, keepdim=True)).squeeze(1),
}


def on_cuda() -> dict[str, Callable[[Tensor], Any]]:
    """Further ways on a GPU: LAPACK has no choice of drivers in torch."""
    return {
        f"svd, float32, driver {driver}": partial(_by_driver, driver=driver) for driver in ("gesvd", "gesvdj", "gesvda")
    }


def _by_driver(noise: Tensor, driver: str) -> Any:
    return torch.linalg.svd(to_matrix(noise), full_matrices=False, driver=driver)


def once(call: Callable[[], Any]) -> float:
    """Time of a call in seconds."""
    start = time.perf_counter()
    call()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of a call, after one that does not count."""
    return statistics.median([once(call) for _ in range(repeats + 1)][1:])


def error(noise: Tensor, parts: Any) -> float:
    """Median distance of the left vectors from those of float64."""
    exact = torch.linalg.svd(to_matrix(noise.double()), full_matrices=False).U
    u = parts[0].double()
    return (u * (u * exact).sum(dim=1, keepdim=True).sign() - exact).norm(dim=1).median().item()


def decompositions(size: str, batch: int, repeats: int) -> None:
    noise = torch.randn(batch, *LATENTS[size], device=DEVICE)
    base = seconds(lambda: decompose(noise), repeats)
    for name, call in (DECOMPOSITIONS | (on_cuda() if DEVICE.type == "cuda" else {})).items():
        taken = seconds(lambda call=call: call(noise), repeats)  # type: ignore[misc]
        cells = f"{taken * 1e3:.1f} ms | {taken / base:.2f} | {error(noise, call(noise)):.0e}"
        print(f"| {batch} x {size} | {name} | {cells} |")


def training_step(size: str, batch: int, svd: str) -> Callable[[], None]:
    """A step without SVD branch (`no`), with it (`yes`), or with its decomposition made beforehand (`cached`)."""
    npnet = NPNet(LATENTS[size], svd=svd != "no", **NETWORKS[size]).to(DEVICE)
    optimizer = torch.optim.AdamW(npnet.parameters())
    noise = torch.randn(batch, *LATENTS[size], device=DEVICE)
    embeds = torch.randn(batch, *NETWORKS[size]["embeds_shape"], device=DEVICE)
    golden = torch.randn_like(noise)
    decomposed = decompose(noise) if svd == "cached" else None

    def step() -> None:
        optimizer.zero_grad()
        (npnet(noise, embeds, svd=decomposed) - golden).square().mean().backward()
        optimizer.step()

    return step


def steps(size: str, batch: int, repeats: int) -> None:
    """The kinds take turns, so that a machine that slows down slows all of them; medians of the rounds' ratios."""
    kinds = [training_step(size, batch, svd) for svd in ("no", "cached", "yes")]
    rounds = [[once(step) for step in kinds] for _ in range(repeats + 1)][1:]
    times = " | ".join(f"{statistics.median(taken) * 1e3:.0f} ms" for taken in zip(*rounds, strict=True))
    ratios = " | ".join(f"{statistics.median(taken[i] / taken[0] for taken in rounds):.3f}" for i in (1, 2))
    print(f"| {batch} x {size} | {NETWORKS[size]['backbone']} | {times} | {ratios} |")


def near_ties(perturbation: float = 1e-3) -> None:
    """Counts the signs that change when the noise changes a little, at a size where they can be counted."""
    matrix = torch.randn(20_000, 16, 16, dtype=torch.float64)
    before = torch.linalg.svd(matrix).U
    after = torch.linalg.svd(matrix + perturbation * torch.randn_like(matrix)).U
    cosine = (before * after).sum(dim=1)
    same = cosine.abs() > 0.9  # without vectors that changed places
    for name, convention in CONVENTIONS.items():
        flips = (convention(before).sign() * convention(after).sign() * cosine.sign() < 0) & same
        print(f"| {name} | {flips.sum() / same.sum() * 1e6:.0f} |")


def main() -> None:
    torch.manual_seed(0)
    print(f"{DEVICE.type}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| noise | decomposition | time | ratio | error of U |\n| --- | --- | --- | --- | --- |")
    decompositions("4x8x8", batch=64, repeats=20)
    decompositions("4x128x128", batch=64, repeats=3)
    print("\n| noise | backbone | training step without SVD branch | cached | with | ratio cached | with |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    steps("4x8x8", batch=64, repeats=60)
    steps("4x128x128", batch=8, repeats=5)
    print("\n| sign convention | flips per million vectors |\n| --- | --- |")
    near_ties()


if __name__ == "__main__":
    main()
