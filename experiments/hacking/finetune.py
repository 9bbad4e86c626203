"""The generator itself, fine-tuned on a reward by adapters: the baseline that gives up the model's distribution."""

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from hydra.utils import instantiate
from lightning.pytorch import seed_everything
from peft import LoraConfig, get_peft_model_state_dict
from tqdm import tqdm

from experiments.study import OUTPUTS, SMOKE, miniature, once
from golden_noise.cli.config import job_config
from golden_noise.shapes.prompts import draw_prompts

LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2"]
WEIGHTS = "pytorch_lora_weights.safetensors"
BATCH, RANK, SEED = 32, 16, 0
STEPS = 4 if SMOKE else 112  # of the optimizer: an epoch of the networks that it is compared with


def finetuned(sampler_steps: int, lr: float = 3e-4) -> Path:
    """The folder of adapters for the miniature's denoiser, trained on its reward through a sampler of some steps."""
    folder = OUTPUTS / "hacking/finetuned"

    def make() -> None:
        seed_everything(SEED, verbose=False)
        reward: Any = instantiate(job_config("train", ["device=cpu", "folder=run", "name=x"]).reward)
        pipeline = miniature(sampler_steps)
        unet = pipeline.denoiser.requires_grad_(False)
        unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS))
        learnt = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=lr)
        prompts = draw_prompts("train", STEPS * BATCH, seed=SEED)
        for start in tqdm(range(0, len(prompts), BATCH), desc="fine-tuning the generator"):
            batch = prompts[start : start + BATCH]
            embedding = pipeline.encode([prompt.text for prompt in batch])
            images = pipeline.generate(pipeline.draw_noise([prompt.seed for prompt in batch]), embedding)
            optimizer.zero_grad()
            reward.loss(images, embedding.texts).mean().backward()
            torch.nn.utils.clip_grad_norm_(learnt, 1.0)
            optimizer.step()
        adapters = get_peft_model_state_dict(unet)
        StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=adapters, weight_name=WEIGHTS)

    once(folder / WEIGHTS, make)
    return folder
