"""Train the miniature from scratch: autoencoder, decoder, denoiser with its text encoders, reward.

    python -m experiments.miniature.train [out=FOLDER] [seed=0] [denoiser.steps=1800] ...

Stages run in order; a stage whose result exists is skipped and an interrupted one resumes from its last checkpoint,
on the same data: batch i of a stage depends on the seed and i alone. The settings are in train.yaml beside this file.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from experiments.miniature.arguments import read_arguments
from golden_noise.files import atomic_file, atomic_folder
from golden_noise.shapes import models
from golden_noise.shapes.scenes import SIZE, requests, sample_batch

CAPTIONS = tuple(requests())
CAPTION_INDEX = {text: i for i, text in enumerate(CAPTIONS)}


class SceneBatches(IterableDataset):
    """Drawn scenes: pixels (B, 3, SIZE, SIZE) in [-1, 1] and captions (B,) as indices into CAPTIONS."""

    def __init__(self, seed: tuple[int, ...], batch_size: int, steps: range):
        self.seed, self.batch_size, self.steps = seed, batch_size, steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self.batch(np.random.default_rng((*self.seed, step))) for step in self.steps)

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        drawn, images = sample_batch(rng, self.batch_size)
        return torch.from_numpy(images) * 2 - 1, torch.tensor([CAPTION_INDEX[r.text] for r in drawn])


class LatentBatches(SceneBatches):
    """Batches of stored latents, drawn with replacement: latents (B, 4, 8, 8), captions (B,)."""

    def __init__(self, stored: dict[str, Tensor], seed: tuple[int, ...], batch_size: int, steps: range):
        super().__init__(seed, batch_size, steps)
        self.stored = stored

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        chosen = rng.integers(len(self.stored["captions"]), size=self.batch_size)
        return self.stored["latents"][chosen], self.stored["captions"][chosen]


class Stage(LightningModule):
    """One training stage: AdamW with a short warm-up and a cosine decay to zero over `settings.steps` steps."""

    number: int

    def __init__(self, settings: DictConfig, seed: int):
        super().__init__()
        self.settings, self.seed = settings, seed

    def batches(self, steps: range) -> IterableDataset:
        return SceneBatches((self.seed, self.number), self.settings.batch_size, steps)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches(range(self.global_step, self.settings.steps)), batch_size=None)

    def loss(self, images: Tensor, captions: Tensor) -> Tensor:
        raise NotImplementedError

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        # Random draws inside the loss depend on the step alone, so that a resumed run sees the same ones.
        torch.manual_seed(hash((self.seed, self.number, self.global_step)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(*batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.settings.lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.settings.lr, total_steps=self.settings.steps + 1, pct_start=0.06
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """L1 and L2 of images (B, 3, H, W) in [-1, 1]; coloured pixels, a tenth of a scene, count six times."""
    chroma = images.amax(1, keepdim=True) - images.amin(1, keepdim=True)
    weight = 1 + 5 * (chroma > 0.2).float()
    difference = (decoded - images) * weight / weight.mean()
    return difference.abs().mean() + (difference * (decoded - images)).mean()


class VAEStage(Stage):
    """Reconstruction in L1 and L2, and a light KL that keeps the latents smooth."""

    number = 0

    def __init__(self, settings: DictConfig, seed: int):
        super().__init__(settings, seed)
        self.vae: Any = models.build_vae()

    def loss(self, images: Tensor, captions: Tensor) -> Tensor:
        posterior = self.vae.encode(images).latent_dist
        decoded = self.vae.decode(posterior.sample()).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return reconstruction_loss(decoded, images) + self.settings.kl_weight * kl


class DecoderStage(Stage):
    """The decoder alone, on the posterior's means plus a little noise, so that it tolerates the denoiser's errors."""

    number = 1

    def __init__(self, settings: DictConfig, seed: int, vae: torch.nn.Module):
        super().__init__(settings, seed)
        self.vae: Any = vae
        for part in (vae.encoder, vae.quant_conv):
            part.requires_grad_(False)

    def loss(self, images: Tensor, captions: Tensor) -> Tensor:
        with torch.no_grad():
            latents = self.vae.encode(images).latent_dist.mean
            # Of a random strength per image: clean latents have to stay sharp.
            strength = self.settings.noise * latents.std() * torch.rand(len(latents), 1, 1, 1)
            latents = latents + strength * torch.randn_like(latents)
        return reconstruction_loss(self.vae.decode(latents).sample, images)


class Conditional(torch.nn.Module):
    """The UNet with both of its text encoders, which learn with it."""

    def __init__(self, pipe: StableDiffusionXLPipeline):
        super().__init__()
        self.unet, self.text_encoder, self.text_encoder_2 = pipe.unet, pipe.text_encoder, pipe.text_encoder_2

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor, keep: Tensor) -> Tensor:
        first = self.text_encoder(tokens, output_hidden_states=True)
        second = self.text_encoder_2(tokens, output_hidden_states=True)
        embeds = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1) * keep[:, None, None]
        sizes = torch.tensor([SIZE, SIZE, 0, 0, SIZE, SIZE], dtype=embeds.dtype).expand(len(noisy), -1)
        added = {"text_embeds": second.text_embeds * keep[:, None], "time_ids": sizes}
        return self.unet(noisy, timesteps, embeds, added_cond_kwargs=added).sample


class DenoiserStage(Stage):
    """Noise prediction on stored latents; the average of the weights (EMA) is what ships."""

    number = 2

    def __init__(self, settings: DictConfig, seed: int, pipe: StableDiffusionXLPipeline, stored: dict[str, Tensor]):
        super().__init__(settings, seed)
        self.net = Conditional(pipe)
        self.average: Any = AveragedModel(self.net, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        self.average.requires_grad_(False)
        self.scheduler, self.stored = pipe.scheduler, stored
        self.tokens = pipe.tokenizer(list(CAPTIONS), padding="max_length", return_tensors="pt").input_ids

    def batches(self, steps: range) -> IterableDataset:
        return LatentBatches(self.stored, (self.seed, self.number), self.settings.batch_size, steps)

    def loss(self, latents: Tensor, captions: Tensor) -> Tensor:
        count = len(latents)
        # One timestep per stratum; the power favours high noise, where the layout of a scene is decided.
        strata = (torch.arange(count) + torch.rand(count)) / count
        timesteps = (1000 * strata**0.7).long().clamp(max=999)
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        keep = (torch.rand(count) >= self.settings.prompt_dropout).float()
        return F.mse_loss(self.net(noisy, timesteps, self.tokens[captions], keep), noise)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        # Not in on_train_batch_end: it comes after the checkpoint, which would lack the last update.
        self.average.update_parameters(self.net)


class RewardStage(Stage):
    """CLIP's symmetric contrastive loss; captions that occur twice in a batch count as one positive each."""

    number = 3

    def __init__(self, settings: DictConfig, seed: int):
        super().__init__(settings, seed)
        self.clip: Any
        self.clip, self.processor = models.build_reward()
        self.tokens = self.processor.tokenizer(list(CAPTIONS), padding="max_length", return_tensors="pt").input_ids
        self.mean = torch.tensor(self.processor.image_processor.image_mean)[:, None, None]
        self.std = torch.tensor(self.processor.image_processor.image_std)[:, None, None]

    def loss(self, images: Tensor, captions: Tensor) -> Tensor:
        pixels = ((images + 1) / 2 - self.mean) / self.std
        logits = self.clip(input_ids=self.tokens[captions], pixel_values=pixels).logits_per_image
        positive = (captions[:, None] == captions[None]).float()
        target = positive / positive.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def fit(stage: Stage, folder: Path) -> Any:
    """Train a stage to its end, from its last checkpoint if there is one."""
    checkpoints = ModelCheckpoint(folder, filename="last", every_n_train_steps=50, enable_version_counter=False)
    trainer = Trainer(
        max_steps=stage.settings.steps,
        max_epochs=-1,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=CSVLogger(folder, name="log"),  # a resumed run adds a version
        callbacks=[checkpoints, RichProgressBar()],
        log_every_n_steps=20,
    )
    last = folder / "last.ckpt"
    trainer.fit(stage, ckpt_path=last if last.exists() else None, weights_only=True)
    return stage


def train_vae(config: DictConfig, out: Path) -> AutoencoderKL:
    if not (out / "vae").exists():
        vae = fit(VAEStage(config.vae, config.seed), out / "stage-vae").vae
        vae = fit(DecoderStage(config.decoder, config.seed, vae), out / "stage-decoder").vae
        vae.register_to_config(scaling_factor=1 / latent_std(vae, config.seed))
        save_models(out / "vae", vae)
    return AutoencoderKL.from_pretrained(out / "vae")


@torch.no_grad()
def latent_std(vae: AutoencoderKL, seed: int) -> float:
    pixels, _ = next(iter(SceneBatches((seed, 10), 1024, range(1))))
    return float(vae.encode(pixels).latent_dist.mean.std())


@torch.no_grad()
def stored_latents(config: DictConfig, vae: AutoencoderKL, out: Path) -> dict[str, Tensor]:
    """Scaled latents (N, 4, 8, 8) and captions (N,) of drawn scenes, encoded once."""
    path = out / "latents.safetensors"
    if not path.exists():
        batches = SceneBatches((config.seed, 11), 250, range(config.latents // 250))
        encoded = [(vae.encode(pixels).latent_dist.mean, captions) for pixels, captions in batches]
        latents, captions = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        stored = {"latents": latents * vae.config.scaling_factor, "captions": captions}
        with atomic_file(path) as file:
            file.write(save(stored))
    return load_file(path)


def train_pipeline(config: DictConfig, out: Path) -> None:
    vae = train_vae(config, out).eval()
    if (out / "pipeline").exists():
        return
    torch.manual_seed(config.seed)
    pipe = models.build_pipeline()
    stage = DenoiserStage(config.denoiser, config.seed, pipe, stored_latents(config, vae, out))
    averaged = fit(stage, out / "stage-denoiser").average.module
    parts = {name: getattr(averaged, name) for name in ("unet", "text_encoder", "text_encoder_2")}
    pipe.register_modules(vae=vae, **parts)
    save_models(out / "pipeline", pipe.to(dtype=torch.float16))


def train_reward(config: DictConfig, out: Path) -> None:
    if (out / "reward").exists():
        return
    torch.manual_seed(config.seed)
    stage = fit(RewardStage(config.reward, config.seed), out / "stage-reward")
    save_models(out / "reward", stage.clip.half(), stage.processor)


def save_models(path: Path, *parts: Any) -> None:
    """Save models, without the name of the folder that they were loaded from, which diffusers writes into configs."""
    with atomic_folder(path) as folder:
        for part in parts:
            part.save_pretrained(folder)
        for file in folder.rglob("*.json"):
            config = json.loads(file.read_text())
            if config.pop("_name_or_path", None) is not None:
                file.write_text(json.dumps(config, indent=2) + "\n")


def main(arguments: list[str]) -> None:
    config = read_arguments(__doc__, OmegaConf.load(Path(__file__).with_suffix(".yaml")), arguments)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, out / "config.yaml")
    torch.set_num_threads(config.num_threads)
    seed_everything(config.seed, verbose=False)
    train_pipeline(config, out)
    train_reward(config, out)
    print(json.dumps({"weights": str(out)}))


if __name__ == "__main__":
    main(sys.argv[1:])
