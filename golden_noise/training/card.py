"""The model card that is saved with a trained NPNet."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from omegaconf import DictConfig, OmegaConf

from golden_noise.npnet import AnyNPNet, DenoiserNPNet
from golden_noise.weights import BUNDLED

LOAD = """from golden_noise.npnet import NPNet

npnet = NPNet.from_pretrained("FOLDER_OR_HUB_ID")"""


def write_card(folder: Path, npnet: AnyNPNet, config: DictConfig, summary: dict[str, Any] | None) -> None:
    """Writes `README.md`: how to use the weights, what they were trained on, and what they reach.

    Args:
        folder: of the saved NPNet.
        config: of the train job.
        summary: content of the evaluation's `results.json`, if there was one.
    """
    text = "\n\n".join([_use(npnet, config), _training(npnet, config), _results(summary)])
    ModelCard(f"---\n{_metadata(config).to_yaml()}\n---\n\n{text}\n").save(folder / "README.md")


def _metadata(config: DictConfig) -> ModelCardData:
    source = config.pipeline.model.source
    public = source.count("/") == 1 and not source.startswith((BUNDLED, ".", "/", "~"))
    return ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["golden-noise", "npnet"],
        base_model=source if public else None,
    )


def _use(npnet: AnyNPNet, config: DictConfig) -> str:
    load = _load_on_its_pipeline(config) if isinstance(npnet, DenoiserNPNet) else LOAD
    return f"""# NPNet for {config.pipeline.name}

Turns starting noise into golden noise (Zhou et al., [arXiv 2411.09502](https://arxiv.org/abs/2411.09502)) for
`{config.pipeline.model.source}`. Trained with golden-noise.

```python
from golden_noise.latents import golden_latents
{load}
images = pipe(prompts, latents=golden_latents(npnet, pipe, prompts, seeds)).images  # pipe: a diffusers pipeline
```"""


def _load_on_its_pipeline(config: DictConfig) -> str:
    """How to load an NPNet that shares its pipeline's denoiser."""
    module, family, _ = config.pipeline.model._target_.rsplit(".", 2)
    settings = ", ".join(f"{name}={config.pipeline[name]}" for name in ("height", "width", "steps", "guidance"))
    return f"""from golden_noise.npnet import DenoiserNPNet
from {module} import {family}

pipeline = {family}.load("{config.pipeline.model.source}", {settings})
npnet = DenoiserNPNet.from_pretrained("FOLDER_OR_HUB_ID", pipeline)
pipe = pipeline.pipe"""


def _training(npnet: AnyNPNet, config: DictConfig) -> str:
    values: Any = OmegaConf.to_container(config, resolve=True)
    settings = {
        "pipeline": values["pipeline"]["model"]["source"],
        "noise": " x ".join(map(str, values["pipeline"]["latent_shape"])),
        "prompt embedding": " x ".join(map(str, values["pipeline"]["embeds_shape"])),
        "pairs": Path(values["data_dir"]).name,
        "search": _inline(values["search"]),
        "epochs": values["trainer"]["max_epochs"],
        "batch size per device": values["data"]["batch_size"],
        "optimizer": _inline(values["model"]["optimizer"]),
        "seed": values["seed"],
        "parameters": f"{sum(parameter.numel() for parameter in npnet.parameters()):,}",
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
    return f"## Training\n\n| setting | value |\n| --- | --- |\n{rows}\n\nThe whole config is in `training.yaml`."


def _inline(options: dict[str, Any]) -> str:
    name = str(options.get("_target_", "")).rpartition(".")[2]
    rest = ", ".join(f"{key}={value}" for key, value in options.items() if not key.startswith("_"))
    return f"{name}({rest})"


def _results(summary: dict[str, Any] | None) -> str:
    if summary is None:
        return "## Results\n\nNot evaluated: `python evaluate.py npnet=FOLDER` compares it with its controls."
    rows = "\n".join(
        f"| {c['metric']} | {c['b']} - {c['a']} | {c['n']} | {c['difference']:+.4g} "
        f"| [{c['ci95'][0]:+.4g}, {c['ci95'][1]:+.4g}] |"
        for c in summary["comparisons"]
        if c["task"] == "all"
    )
    return (
        "## Results\n\nPaired differences on held-out prompts, with 95 % intervals. `shuffled`, `random_shift` and "
        "`rescaled` are controls:\na gain that they show too is not golden noise.\n\n"
        f"| metric | difference | n | mean | interval |\n| --- | --- | --- | --- | --- |\n{rows}"
    )
