"""(c) NPNet's forward pass at 1024 x 1024: ways to run it, and its share of a generation with SDXL."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.results import Row
from benchmarks.models import build_npnet, few_steps, sdxl
from golden_noise.npnet import NPNet
from golden_noise.pipelines.prompt_embedding import PromptEmbedding
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.search.redenoise import Redenoise

PROMPT = "a blue triangle left of a red circle"
CALL_TFLOP = 6.76  # of one denoiser call for one image: benchmarks/costs.py
SHARES = {"50 steps": 1.0, "4 steps": 5.0}  # percent of a generation that NPNet may take
Generations = dict[str, float]


@torch.no_grad()
def run(day: Day) -> None:
    pipeline, npnet = sdxl(day.device, day.tiny), build_npnet(day.tiny).eval()
    difference(day, npnet)
    npnet = npnet.to(day.device)
    batches = {batch: generations(day, pipeline, batch) for batch in (1, 8)}
    for batch, known in batches.items():
        prompt = pipeline.encode([PROMPT] * batch)
        noise = pipeline.draw_noise(range(batch))
        used = day.measure(
            f"NPNet as generate calls it, batch {batch}", partial(npnet.golden, noise, prompt), repeats=10, warm=3
        )
        judge(day, used, known, batch)
        ways(day, npnet, noise.to(day.device), prompt.embeds.float(), known)
    for batch, known in batches.items():  # last, since compiling takes the longest
        noise, prompt = pipeline.draw_noise(range(batch)).to(day.device), pipeline.encode([PROMPT] * batch)
        compiled(day, npnet, noise, prompt.embeds.float(), known)


def difference(day: Day, npnet: NPNet) -> None:
    """How far golden noise on the GPU is from that on the CPU, with and without TF32 in convolutions."""
    if not day.is_cuda:
        return
    noise, embeds = torch.randn(2, *npnet.latent_shape), torch.randn(2, *npnet.embeds_shape)
    expected, there = npnet(noise, embeds), copy.deepcopy(npnet).to(day.device)
    default = torch.backends.cudnn.allow_tf32
    for allowed in (True, False):
        torch.backends.cudnn.allow_tf32 = allowed
        golden = there(noise.to(day.device), embeds.to(day.device)).cpu()
        worst, what = (golden - expected).abs().max().item(), "with TF32 in convolutions" if allowed else "without TF32"
        note = "torch's default" if allowed == default else ""
        day.goal(f"GPU against CPU, largest difference {what}", worst, "", "≤ 0.001", worst <= 1e-3, note)
    torch.backends.cudnn.allow_tf32 = default


def generations(day: Day, pipeline: SDXLPipeline, batch: int) -> Generations:
    """Seconds of whole generations from standard noise, and of their parts."""
    prompt, noise = pipeline.encode([PROMPT] * batch), pipeline.draw_noise(range(batch))
    vae, few = pipeline.pipe.vae, few_steps(pipeline)
    named = f", batch {batch}"
    day.measure(f"encoding{named}", lambda: pipeline.encode([PROMPT] * batch))
    day.measure(f"search=redenoise, 3 calls{named}", lambda: Redenoise(10).search(noise, prompt, pipeline))
    latents = noise.to(day.device, pipeline.dtype) / vae.config.scaling_factor
    day.measure(f"VAE alone{named}", lambda: vae.decode(latents).sample, repeats=2)
    call = day.measure(f"one denoiser call{named}", lambda: pipeline.predict(noise, 501, prompt, 1.0))
    if call and not day.tiny:
        day.add(Row(f"denoiser{named}", CALL_TFLOP * batch / call, "TFLOP/s", note=f"{CALL_TFLOP} TFLOP a call"))
    found = {"4 steps": day.measure(f"4 steps without guidance{named}", lambda: few.sample(prompt, noise), repeats=2)}
    if batch == 1:
        whole = lambda: pipeline.sample(prompt, noise)  # noqa: E731
        found["50 steps"] = day.measure(f"50 steps with guidance{named}", whole, repeats=1, warm=0)
    else:
        found["50 steps"] = extrapolated(day, pipeline, prompt, noise, named)
    return {name: seconds for name, seconds in found.items() if seconds}


def extrapolated(day: Day, pipeline: SDXLPipeline, prompt: PromptEmbedding, noise: Tensor, named: str) -> float | None:
    """Seconds of 50 guided steps by those of 2 and of 5, since all of them would take half a minute."""
    taken: list[float] = []

    def figure() -> Row:
        two, five = (day.seconds(partial(pipeline.sample, prompt, noise, steps), repeats=1) for steps in (2, 5))
        taken.append(two + 48 * (five - two) / 3)
        return Row(f"50 steps with guidance{named}", 1000 * taken[0], "ms", note="from the times of 2 and 5 steps")

    day.attempt(f"50 steps with guidance{named}", figure)
    return taken[0] if taken else None


def judge(day: Day, seconds: float | None, known: Generations, batch: int) -> None:
    for name, limit in SHARES.items():
        if seconds and name in known:
            share = 100 * seconds / known[name]
            day.goal(f"NPNet beside {name}, batch {batch}", share, "%", f"≤ {limit:.0f} %", share <= limit)


def shares(seconds: float | None, known: Generations) -> str:
    return ", ".join(f"{100 * seconds / known[name]:.2g} % of {name}" for name in known) if seconds else ""


def ways(day: Day, npnet: NPNet, noise: Tensor, embeds: Tensor, known: Generations) -> None:
    """The network in its forms, on what is on the device already."""
    batch, branch = len(noise), npnet.svd_branch
    assert branch is not None
    half = copy.deepcopy(npnet).bfloat16()
    timed(day, f"decomposition alone, batch {batch}", lambda: branch.decompose(noise), known)
    timed(day, f"eager, float32, batch {batch}", lambda: npnet(noise, embeds), known)
    timed(day, f"eager, bfloat16, batch {batch}", lambda: half(noise, embeds), known)
    if day.is_cuda:
        for name, network in {"float32": npnet, "bfloat16": half}.items():
            what = f"captured graph, {name}, batch {batch}"
            day.attempt(what, partial(graphed, day, what, network, noise, embeds, known))


def timed(day: Day, what: str, call: Callable[[], object], known: Generations) -> None:
    day.attempt(what, lambda: row(what, day.seconds(call, repeats=10, warm=3), known))


def row(what: str, seconds: float, known: Generations, note: str = "") -> Row:
    return Row(what, 1000 * seconds, "ms", note="; ".join(filter(None, (shares(seconds, known), note))))


def graphed(day: Day, what: str, network: NPNet, noise: Tensor, embeds: Tensor, known: Generations) -> Row:
    seconds = day.seconds(captured(network, noise, embeds), repeats=10, warm=3)
    return row(what, seconds, known, "the decomposition, which waits for its result, stays outside of the graph")


def captured(network: NPNet, noise: Tensor, embeds: Tensor) -> Callable[[], Tensor]:
    """The network as a CUDA graph. cuSOLVER's result is checked on the CPU, which no graph can hold."""
    branch: Any = network.svd_branch
    svd = tuple(part.clone() for part in branch.decompose(noise))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            network(noise, embeds, svd=svd)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        golden = network(noise, embeds, svd=svd)

    def replay() -> Tensor:
        for kept, new in zip(svd, branch.decompose(noise), strict=True):
            kept.copy_(new)
        graph.replay()
        return golden

    return replay


def compiled(day: Day, npnet: NPNet, noise: Tensor, embeds: Tensor, known: Generations) -> None:
    """Compiled without the decomposition, which is a call of a library either way."""
    what = f"compiled, float32, batch {len(noise)}"
    branch: Any = npnet.svd_branch

    def figure() -> Row:
        torch._dynamo.reset()
        network: Any = torch.compile(npnet, dynamic=False, backend=backend(day))

        def call() -> object:
            return network(noise, embeds, svd=branch.decompose(noise))

        start = day.once(call)
        return row(what, day.seconds(call, repeats=10, warm=2), known, f"{start:.0f} s to compile")

    day.attempt(what, figure)


def backend(day: Day) -> str:
    """What a tiny build tries is whether the graph can be traced, not what a C++ compiler makes of it."""
    return "aot_eager" if day.tiny else "inductor"
