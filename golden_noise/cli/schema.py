"""The settings of the four jobs: which ones a job reads, and what each may be.

A composed config is checked against its job's class before anything is loaded. A group that the class does not name is
left out of the job's config. Settings of a class that `_target_` names are checked as far as they are listed here.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # more bits would not change the noise: torch's CPU generator reads 32
Steps = Annotated[int, Field(ge=1, le=1000)]  # a schedule has no more levels
Epochs = Annotated[int, Field(ge=-1)]  # -1: without end
Rate = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Factor = Annotated[float, Field(gt=0, le=1000)]  # of noise: ten times more overflows in float16
Strength = Annotated[float, Field(ge=0, le=2)]  # of the move to golden noise, as in the ComfyUI nodes
Group = Annotated[int, Field(ge=2, le=1024)]
Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(pattern=r"\S", description="text, not empty, and quoted if it looks like a number")]
Device = Annotated[str, Field(pattern=r"\S", description="auto, cpu, cuda, cuda:1 or mps")]
Noise = Literal["standard", "golden", "search", "candidates"]
OPEN: Any = None  # the default of a setting that a config may leave out


class Settings(BaseModel):
    """Settings that are all known: another one is most likely misspelt."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Part(Settings):
    """Settings of what `_target_` names, which may take others too."""

    model_config = ConfigDict(extra="allow")


class Paths(Settings):
    outputs: Text


class Memory(Settings):
    offload: Literal["none", "model", "sequential"] = OPEN
    vae_slicing: bool = OPEN
    vae_tiling: bool = OPEN
    vae_upcast: bool = OPEN
    attention: Text | None = None
    compile: bool = OPEN
    channels_last: bool = OPEN


class Scheduler(Part):
    name: Text


class Weights(Settings):
    source: Text
    revision: Text | None = None


class WeightsFile(Weights):
    weight_name: Text | None = None


class Lora(WeightsFile):
    strength: float = OPEN


class DiffusionModel(Part):
    source: Text = OPEN
    config: Text | None = None
    steps: Steps = OPEN
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = OPEN
    memory: Memory | None = None
    scheduler: Scheduler | None = None
    vae: Weights | None = None
    unet: WeightsFile | None = None
    loras: dict[str, Lora] = OPEN
    lora: Annotated[None, Field(description="null: each of several has a name, pipeline.model.loras.NAME=")] = None


class BatchSizes(Settings):
    collect: Count = OPEN
    evaluate: Count = OPEN
    generate: Count = OPEN


class Pipeline(Settings):
    name: Text
    bundled: bool
    height: Count
    width: Count
    size_multiple: Count = 8
    trained_size: list[Count] | None = None
    latent_shape: list[Count]
    prompt_syntax: Literal["plain", "weighted"]
    prompt_chunks: Annotated[int, Field(ge=1, le=100)]
    embeds_shape: list[Count]
    pooled_shape: list[Count] | None
    conv_in: Count = OPEN
    steps: Steps
    search_steps: Steps = OPEN
    guidance: float
    guidance_rescale: Share
    negative_prompt: Annotated[str, Field(description="text, which may be empty")]
    npnet: Text | None
    batch_size: BatchSizes = OPEN
    vocabulary: list[str] | None = None
    model: DiffusionModel


class Search(Part):
    steps: Steps = OPEN
    rounds: Count = OPEN
    refinements: Size = OPEN
    n: Count = OPEN
    preview_steps: Steps | None = OPEN
    denoising_guidance: float = OPEN
    inversion_guidance: float = OPEN
    factor: float = OPEN
    ratio: Share = OPEN
    back_steps: Steps | None = OPEN
    iterations: Count = OPEN
    lr: Positive = OPEN
    momentum: Share = OPEN
    clip: Positive = OPEN
    regulariser: Literal["norm", "mpgr", "gper", "sphere", "none"] = OPEN
    weight: Rate | None = OPEN
    jacobian_steps: Size | None = OPEN
    checkpointing: bool = OPEN
    neighbours: Count = OPEN
    radius: Positive = OPEN
    strength: float = OPEN
    jitter: Rate = OPEN


class OwnSearch(Search):
    target: Text = Field(alias="_target_")


class Prompts(Part):
    count: Count = OPEN
    seed: Seed = OPEN
    columns: list[Text] = OPEN
    category: Text | None = None
    keep: list[Text] = OPEN
    until_tab: bool = OPEN
    files: dict[str, Text] = OPEN


class Recipe(Settings):
    epochs: Epochs
    batch_size: Count
    lr: Rate
    vit_lr: Rate
    denoiser_lr: Rate
    backbone: Text | None
    backbone_size: Count | None
    backbone_args: dict[str, Any] | None
    lora_rank: Count | None


class Optimizer(Part):
    lr: Rate = OPEN


class GuidedLatents(Settings):
    steps: Steps
    guidance: float


class Objective(Part):
    monitor: Text | None
    mode: Literal["min", "max"]
    path: Text = OPEN
    filter: dict[str, float] | None = None
    beta: Rate = OPEN
    scale: Rate = OPEN
    steps: Steps | None = None
    guidance: float | None = None
    jacobian_steps: Size | None = None
    target_steps: Steps | None = None
    target_guidance: float = OPEN
    checkpointing: bool = OPEN
    group: Group = OPEN
    sigma: Factor = OPEN
    stored: GuidedLatents = OPEN


class Reward(Part):
    weights: dict[str, float]


class Network(Settings):
    npnet: Part
    optimizer: Optimizer
    scheduler: Part | None
    pooled_shape: list[Count] | None = None


class Data(Part):
    data_dir: Text = OPEN
    cache: Text | None = None
    batch_size: Count = OPEN
    embeds_cache: Size = OPEN
    val_fraction: Share = OPEN
    shuffle_shards: Size = OPEN
    num_workers: Size = OPEN
    prefetch_factor: Count = OPEN
    persistent_workers: bool = OPEN
    pin_memory: bool = OPEN


class Trainer(Part):
    max_epochs: Epochs | None = None


class Fabric(Part):
    num_nodes: Count = OPEN


class Collection(Settings):
    batch_size: Count
    shard_size: Count
    select_by: Any  # see golden_noise.collecting.selection
    margin: float
    store_embeds: bool
    guided: GuidedLatents | None
    failures_in_a_row: Count


class Logger(Part):
    save_dir: Text | None = None
    folder: Text = OPEN
    project: Text | None = None
    name: str | None = None
    group: Text | None = None
    tracking_uri: Text = OPEN
    experiment_name: Text = OPEN
    run_name: Text | None = None
    tags: list[str] | dict[str, str] | None = None


class BestOf(Settings):
    count: Annotated[int, Field(ge=2)]
    metric: Text | None = None


class Constant(Settings):
    prompts: Prompts | None
    factor: Factor | None
    factors: list[Factor] | None
    count: Count
    cache: Text


class Guided(Settings):
    guidance: float
    steps: Steps | None = None


class Evaluation(Settings):
    prompts: Prompts | None
    batch_size: Count
    # Images are drawn,
    methods: Text | list[Text] = OPEN
    checkpoints: dict[str, Text] = OPEN
    searches: dict[str, OwnSearch] = OPEN
    best_of: BestOf = OPEN
    guided: Guided = OPEN
    constant: Constant = OPEN
    # or exist already.
    images: dict[str, Text] = OPEN
    folder: Text = OPEN
    metadata: Any = OPEN


class Job(Settings):
    """What every job reads."""

    job: Text
    device: Device
    seed: Seed
    paths: Paths
    pipeline: Pipeline
    search: Search
    metric: dict[str, Part] = {}
    reward: Reward


class Run(Job):
    """A job with a run folder and perhaps a trained network; `attention` and `target` are what its file may lack."""

    name: Text
    folder: Text
    npnet: Text | None
    attention: bool | None
    target: Literal["absolute", "difference"] | None


class Draw(Run):
    """A job that draws images."""

    fit: Literal["exact", "tile", "crop", "resize"] | None
    long_prompt: Literal["truncate", "average", "chain"] | None
    fabric: Fabric


class Collect(Job):
    """The settings of collect."""

    mode: Literal["resume", "extend", "retry", "overwrite"]
    data_dir: Text
    upload: Text | None
    prompts: Prompts
    collection: Collection
    fabric: Fabric
    logger: dict[str, Logger | None] = {}
    name: Text = OPEN  # for the name of a W&B run


class Train(Run):
    """The settings of train."""

    data_dir: Text
    data_seed: Seed
    devices: Any
    num_threads: Count | None
    sample_every_n_epochs: Size
    evaluate: bool
    recipe: Recipe
    objective: Objective
    model: Network
    data: Data
    trainer: Trainer
    callbacks: dict[str, Part | None] = {}
    prompts: Prompts
    collection: Collection
    evaluation: Evaluation
    logger: dict[str, Logger | None] = {}


class Evaluate(Draw):
    """The settings of evaluate."""

    prompts: Prompts
    evaluation: Evaluation
    logger: dict[str, Logger | None] = {}


class Candidates(Settings):
    group: Group
    sigma: Factor


class Generate(Draw):
    """The settings of generate."""

    prompt: str | None
    prompts: Prompts = OPEN
    images_per_prompt: Count
    seeds: list[Seed] | None
    noise: Noise | list[Noise]
    noise_file: Text | None
    save_noise: bool
    strength: Strength
    candidates: Candidates
    batch_size: Count
    layout: Literal["flat", "geneval", "t2i_compbench"]
    format: Literal["png", "jpg", "webp"]
    quality: Annotated[int, Field(ge=1, le=100)] | None


JOBS: dict[str, type[Job]] = {"collect": Collect, "train": Train, "evaluate": Evaluate, "generate": Generate}


def reads(job: str, name: str) -> bool:
    """Whether a job reads a setting or group, or no job does: presets serve the composition only."""
    return name in JOBS[job].model_fields or not any(name in each.model_fields for each in JOBS.values())
