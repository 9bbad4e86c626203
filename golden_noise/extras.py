"""Which packages come with which extra, for those who installed less."""

from golden_noise.invocation import PROGRAM

#: The extra that a command needs, where it is not "train".
EXTRA = {"app": "app", "generate": "generate", "evaluate": "evaluate", "config": "generate", "convert": "generate"}
#: The packages that the extras bring, as they are imported.
OPTIONAL = (
    *("accelerate", "braceexpand", "filelock", "fsspec", "gradio", "hydra", "jinja2", "lightning", "omegaconf", "peft"),
    *(
        "pydantic",
        "rich",
        "scipy",
        "starlette",
        "timm",
        "torchmetrics",
        "torchvision",
        "tqdm",
        "wandb",
        "webdataset",
        "yaml",
    ),
)


def lacking(error: ModuleNotFoundError, command: str) -> str | None:
    """What to install for a command, or None if no extra brings the missing module."""
    package = (error.name or "").partition(".")[0]
    if package not in OPTIONAL:
        return None
    return f"{command} needs the package {package}: pip install '{PROGRAM}[{EXTRA.get(command, 'train')}]'"
