"""The model card that is saved with a trained NPNet."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from omegaconf import DictConfig, OmegaConf

from golden_noise.evaluation.verdict import change, compared, name, plain, verdict
from golden_noise.files import write_atomically
from golden_noise.generation.names import NPNET, STANDARD
from golden_noise.hub import BUNDLED
from golden_noise.identity import PAIRS
from golden_noise.invocation import command
from golden_noise.npnet import AnyNPNet
from golden_noise.pipelines.single_file import is_file


def write_card(
    folder: Path,
    npnet: AnyNPNet,
    config: DictConfig,
    summary: dict[str, Any] | None,
    search: dict[str, Any] | None = None,
) -> None:
    """Writes `README.md`: how to use the weights, their training and their results.

    Args:
        folder: of the saved NPNet.
        config: of the train job.
        summary: content of the evaluation's `results.json`, if there was one.
        search: that made the pairs, if known; by default the config's.
    """
    source = config.pipeline.model.source
    public = source.count("/") == 1 and not source.startswith((BUNDLED, ".", "/", "~")) and not is_file(source)
    metadata = ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["golden-noise", "npnet"],
        base_model=source if public else None,
    )
    text = "\n\n".join([_use(config), _training(npnet, config, search), _results(summary)])
    write_atomically(folder / "README.md", str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}\n")))


def _use(config: DictConfig) -> str:
    return f"""# NPNet for {config.pipeline.name}

Turns starting noise into golden noise (Zhou et al., [arXiv 2411.09502](https://arxiv.org/abs/2411.09502)) for
`{config.pipeline.model.source}`. Trained with golden-noise.

```python
from golden_noise.invocation import command
from golden_noise import golden_latents

latents = golden_latents("FOLDER_OR_HUB_ID", pipe, prompt, seeds=0)  # pipe: a diffusers pipeline
image = pipe(prompt, latents=latents).images[0]
```"""


def _training(npnet: AnyNPNet, config: DictConfig, search: dict[str, Any] | None) -> str:
    values: Any = OmegaConf.to_container(config, resolve=True)
    start = values.get("npnet")
    settings = ({"trained on from": _public(start)} if start else {}) | {
        "pipeline": values["pipeline"]["model"]["source"],
        "noise": " x ".join(map(str, values["pipeline"]["latent_shape"])),
        "prompt embedding": " x ".join(map(str, values["pipeline"]["embeds_shape"])),
        "objective": _objective(values),
        **(
            {"pairs": Path(values["data_dir"]).name, "search": _inline(search or values["search"])}
            if values["objective"]["_target_"] == PAIRS
            else {}
        ),
        "epochs": values["trainer"]["max_epochs"],
        "batch size per device": values["data"]["batch_size"],
        "optimizer": _inline(values["model"]["optimizer"]),
        "seed": values["seed"],
        "parameters": f"{sum(parameter.numel() for parameter in npnet.parameters()):,}",
    }
    rows = "\n".join(f"| {setting} | {value} |" for setting, value in settings.items())
    return f"## Training\n\n| setting | value |\n| --- | --- |\n{rows}\n\nThe whole config is in `training.yaml`."


def _objective(values: dict[str, Any]) -> str:
    objective = {name: value for name, value in values["objective"].items() if name not in ("monitor", "mode")}
    if "reward" in objective:
        objective["reward"] = " + ".join(f"{weight} {name}" for name, weight in objective["reward"]["weights"].items())
    if "path" in objective:
        objective["path"] = Path(objective["path"]).name
    return _inline(objective)


def _public(source: str) -> str:
    """A source without the paths of this machine."""
    source = source.replace(f"{Path.cwd()}/", "")
    return Path(source).name if source.startswith(("/", "~")) else source


def _inline(options: dict[str, Any]) -> str:
    target = str(options.get("_target_", "")).rpartition(".")[2]
    rest = ", ".join(f"{key}={value}" for key, value in options.items() if not key.startswith("_"))
    return f"{target}({rest})"


def _results(summary: dict[str, Any] | None) -> str:
    if summary is None:
        return f"## Results\n\nNot evaluated: `{command('evaluate')} npnet=FOLDER` compares it with its controls."
    methods, metrics = summary["methods"], list(summary["methods"][STANDARD])
    names = {method: f"**{name(method)}**" if method == NPNET else name(method) for method in methods}
    rows = [[names[method], *(_cell(summary, metric, method) for metric in metrics)] for method in methods]
    table = [["starting noise", *metrics], ["---"] * (len(metrics) + 1), *rows]
    remarks = [*(verdict(summary, metric) for metric in metrics), *summary["notes"]]
    return "\n".join(
        [
            f"## Results\n\nMeans over {methods[STANDARD][metrics[0]]['n']:,} images each, and paired changes against",
            "standard noise with 95 % intervals. Shuffled prompts, random shift, rescaled noise and the constant",
            "factor (noise times the number that does best on training prompts) are controls: a gain that they show",
            "too is not golden noise.\n",
            *(f"| {' | '.join(row)} |" for row in table),
            "",
            *(f"- {remark}" for remark in remarks),
        ]
    )


def _cell(summary: dict[str, Any], metric: str, method: str) -> str:
    """A mean, and its change against standard noise."""
    comparison = compared(summary, metric, STANDARD, method)
    mean = plain(summary["methods"][method][metric]["mean"])
    return f"{mean}, {change(comparison)}" if comparison else mean
