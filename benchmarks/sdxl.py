"""What each stage of SDXL at its real size costs: encoding, NPNet, sampling, VAE; time and peak GPU memory.

Random weights of the published sizes, so nothing is downloaded: the arithmetic does not depend on them.
`python benchmarks/sdxl.py` needs a GPU with 16 GB; `--tiny` runs the same code on a tiny build, anywhere.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from golden_noise.device import pick_device
from golden_noise.noise import draw_noise
from golden_noise.npnet import NPNet
from golden_noise.pipelines.sdxl import SDXLPipeline
from golden_noise.search.redenoise import Redenoise
from golden_noise.shapes.models import build_pipeline, build_scheduler, build_tokenizer

PROMPT = "a blue triangle left of a red circle"


def build_sdxl(device: torch.device) -> StableDiffusionXLPipeline:
    """SDXL base 1.0 with random weights in float16, as its configs on the hub describe it."""
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 77
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 1}
    clip_l = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    clip_g = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
    )
    for config in (clip_l, clip_g):
        config.update(special)
    with device:
        torch.set_default_dtype(torch.float16)
        try:
            unet = UNet2DConditionModel(
                sample_size=128,
                block_out_channels=(320, 640, 1280),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2, 10),
                attention_head_dim=(5, 10, 20),
                use_linear_projection=True,
                cross_attention_dim=2048,
                addition_embed_type="text_time",
                addition_time_embed_dim=256,
                projection_class_embeddings_input_dim=1280 + 6 * 256,
            )
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                sample_size=1024,
                scaling_factor=0.13025,
            )
            encoders = {"text_encoder": CLIPTextModel(clip_l), "text_encoder_2": CLIPTextModelWithProjection(clip_g)}
        finally:
            torch.set_default_dtype(torch.float32)
    parts = encoders | {"vae": vae, "unet": unet, "tokenizer": tokenizer, "tokenizer_2": tokenizer}
    return StableDiffusionXLPipeline(**parts, scheduler=build_scheduler(), add_watermarker=False).to(device)


class Stages:
    """Time and peak memory of named stages, each run once before it is measured."""

    def __init__(self, device: torch.device, repeats: int):
        self.device, self.repeats = device, repeats
        self.rows: list[dict[str, Any]] = []

    def measure(self, name: str, stage: Callable[[], object]) -> None:
        """Median seconds of a stage, and the most memory in use at once, weights included."""
        stage()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        times = []
        for _ in range(self.repeats):
            self._wait()
            start = time.perf_counter()
            stage()
            self._wait()
            times.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else None
        self.rows.append({"stage": name, "seconds": sorted(times)[len(times) // 2], "peak_GiB": peak})

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def table(self) -> str:
        """Markdown, with every stage's share of the sampling's time."""
        (sampling,) = (row["seconds"] for row in self.rows if row["stage"] == "sampling, standard noise")
        lines = ["| stage | seconds | share of sampling | peak GiB |", "| --- | --- | --- | --- |"]
        for row in self.rows:
            peak = "–" if row["peak_GiB"] is None else f"{row['peak_GiB']:.1f}"
            lines.append(f"| {row['stage']} | {row['seconds']:.4f} | {row['seconds'] / sampling:.4f} | {peak} |")
        return "\n".join(lines)


@torch.inference_mode()
def run(tiny: bool, steps: int, batch: int, repeats: int) -> Stages:
    """Measure every stage from prompts to images, once from standard and once from golden noise."""
    torch.manual_seed(0)
    device = torch.device("cpu") if tiny else pick_device("cuda")
    size = 32 if tiny else 1024
    pipe = build_pipeline() if tiny else build_sdxl(device)
    pipeline = SDXLPipeline(pipe, height=size, width=size, steps=steps, guidance=5.5)
    stages = Stages(device, repeats)
    prompt = pipeline.encode([PROMPT] * batch)
    noise = draw_noise(range(batch), pipeline.latent_shape)
    backbone = (
        {"backbone": "vit_tiny_patch16_224", "backbone_args": {"img_size": 8, "patch_size": 1, "in_chans": 4}}
        if tiny
        else {"backbone": "swin_tiny_patch4_window7_224", "backbone_size": 224}
    )
    npnet = NPNet(pipeline.latent_shape, prompt.embeds.shape[1:], **backbone).to(device).eval()
    golden = npnet.golden(noise, prompt)
    latents = noise.to(device, pipeline.dtype) / pipe.vae.config.scaling_factor
    stages.measure("encoding", lambda: pipeline.encode([PROMPT] * batch))
    stages.measure("NPNet", lambda: npnet.golden(noise, prompt))
    stages.measure("search (redenoise)", lambda: Redenoise(10).search(noise, prompt, pipeline))
    stages.measure("sampling, standard noise", lambda: pipeline.sample(prompt, noise))
    stages.measure("sampling, golden noise", lambda: pipeline.sample(prompt, golden))
    stages.measure("VAE alone", lambda: pipe.vae.decode(latents).sample)
    return stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny build on the CPU: whether it runs, not how fast")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="also write the figures to this JSON file")
    options = parser.parse_args()
    if not options.tiny and not torch.cuda.is_available():
        print("no CUDA GPU: SDXL at its real size is skipped (--tiny runs a tiny build)")
        return
    stages = run(options.tiny, options.steps, options.batch, options.repeats)
    machine = "tiny build, CPU" if options.tiny else torch.cuda.get_device_name()
    print(f"{machine}: {options.steps} steps, batch {options.batch}")
    print(stages.table())
    if options.output:
        options.output.write_text(json.dumps(stages.rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
