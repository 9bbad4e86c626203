"""objective=guided_stored: guided latents from a collection instead of guided sampling at every step."""

import pytest
import torch
from hydra.utils import instantiate
from lightning import Trainer, seed_everything

from golden_noise.cli.validation import check
from golden_noise.collecting.job import collect
from golden_noise.errors import UserError
from golden_noise.npnet import LowFrequencyNPNet
from golden_noise.objectives.guided import Guided, StoredGuided
from golden_noise.pairs import NoisePair, ShardIndex
from golden_noise.pairs.reader import read_shard
from golden_noise.pipelines.lazy import LazyPipeline
from golden_noise.prompts import Prompt
from golden_noise.training.data import build_data
from golden_noise.training.job import train
from golden_noise.training.module import NPNetModule
from golden_noise.training.prompt_data import PromptDataModule, PromptDataset

FEW = ["prompts.count=60", "pipeline.steps=2", "search=rescale"]
LEARNING = [
    "recipe.batch_size=8",
    "data.val_fraction=0.4",
    "recipe.epochs=1",
    "data.num_workers=0",
    "trainer.log_every_n_steps=1",
]
SMALL = ["recipe.backbone_args.embed_dim=16", "recipe.backbone_args.depth=1"]
TARGETS = ["objective.stored.steps=3", "objective.stored.guidance=2.5"]


class SameNoise(PromptDataModule):
    """Prompts that keep the noise of their own seed, as pairs do."""

    def dataset(self, split, max_open=1):
        return PromptDataset(self.all_prompts, self.latent_shape, self.seed, fresh=False)


def job(compose_job, *overrides):
    config = compose_job("train", *FEW, *LEARNING, *SMALL, *overrides)
    check(config)
    return config


@pytest.fixture
def stored(compose_job):
    return lambda *overrides: job(compose_job, "objective=guided_stored", *TARGETS, *overrides)


def collected(compose_job, *overrides):
    collect(compose_job("collect", *FEW, *overrides))


def test_a_collection_stores_the_guided_latents_of_its_noises(compose_job, tmp_path):
    collected(compose_job, "prompts.count=5", "collection.guided={steps:3,guidance:2.5}")
    pipeline = LazyPipeline(compose_job("train", "pipeline.steps=2").pipeline.model).loaded
    index = ShardIndex.load(tmp_path / "pairs")
    assert index.config["guided"] == {"steps": 3, "guidance": 2.5}
    pairs = [NoisePair.from_sample(sample) for sample in read_shard(index.folder, index.shards[0])]
    assert len(pairs) == 5
    prompt = pipeline.encode([pair.prompt.text for pair in pairs])
    with torch.no_grad():
        expected = pipeline.clean(pipeline.draw_noise([pair.prompt.seed for pair in pairs]), prompt, 3, 2.5)
    found = torch.stack([pair.guided for pair in pairs])
    assert torch.equal(found, expected.half().float())
    assert not torch.allclose(found, pipeline.clean(torch.stack([pair.noise for pair in pairs]), prompt, 3, 1.0))


def test_a_pair_keeps_its_guided_latents_and_may_have_none():
    tensors = [torch.randn(4, 6, 8).half().float() for _ in range(3)]
    pair = NoisePair(Prompt(3, "ü", 5), tensors[0], tensors[1], None, {}, True, {}, guided=tensors[2])
    assert torch.equal(NoisePair.from_sample(pair.to_sample()).guided, tensors[2])
    without = NoisePair(Prompt(3, "ü", 5), tensors[0], tensors[1], None, {}, True, {})
    assert "guided.npy" not in without.to_sample() and NoisePair.from_sample(without.to_sample()).guided is None


def test_it_learns_what_sampling_at_every_step_teaches(compose_job, stored):
    """The same noises in the same order: but for float16, the weights are the same."""
    config = stored()
    pipeline = LazyPipeline(config.pipeline.model)
    options = {name: config.data[name] for name in ("batch_size", "val_fraction", "seed", "pin_memory")}
    online = SameNoise(instantiate(config.prompts), pipeline, config.pipeline.latent_shape, **options)
    moves = []
    for objective, data in ((StoredGuided({}), build_data(config, pipeline)), (Guided(3, 2.5), online)):
        seed_everything(0, verbose=False)
        npnet = LowFrequencyNPNet((4, 8, 8), (16, 128), modes=4)
        before = torch.cat([p.detach().flatten().clone() for p in npnet.parameters()])
        module = NPNetModule(npnet, lambda groups: torch.optim.SGD(groups, lr=0.1), None, objective, pipeline)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
        few = {"limit_train_batches": 3, "limit_val_batches": 1, "num_sanity_val_steps": 0}
        Trainer(max_epochs=1, enable_model_summary=False, **quiet, **few).fit(module, datamodule=data)
        moves.append(torch.cat([p.detach().flatten() for p in npnet.parameters()]) - before)
    assert moves[1].norm() > 1e-3
    assert (moves[0] - moves[1]).norm() < 5e-3 * moves[1].norm()


def test_a_job_collects_them_and_trains(stored, tmp_path):
    train(stored("logger=csv"))
    assert ShardIndex.load(tmp_path / "pairs").config["guided"] == {"steps": 3, "guidance": 2.5}
    logged = (tmp_path / "run/csv/version_0/metrics.csv").read_text().partition("\n")[0]
    assert {"train/loss", "val/loss", "val/score/strict"} <= {*logged.split(",")}
    assert "val/explained" not in logged
    with pytest.raises(UserError, match=r"guidance=2\.5, now .*guidance=3"):
        train(stored("recipe.epochs=2", "objective.stored.guidance=3", "pipeline.bundled=false"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("objective.stored.steps=4", r"collected with guided\.steps=3, but this run has guided\.steps=4"),
        ("objective.stored.guidance=2", r"collected with guided\.guidance=2\.5, but this run has guided\.guidance=2"),
        ("pipeline.negative_prompt=bad", r"collected with model\.negative_prompt=, but .*=bad"),
        ("pipeline.name=other", r"collected with pipeline\.name=shapes, but this run has pipeline\.name=other"),
    ],
)
def test_latents_of_other_sampling_are_refused(compose_job, stored, change, words):
    collected(compose_job, "collection.guided={steps:3,guidance:2.5}")
    with pytest.raises(UserError, match=words) as error:
        train(stored("pipeline.bundled=false", change))
    assert "\n" not in str(error.value)


def test_pairs_without_them_say_how_to_get_some(compose_job, stored):
    collected(compose_job)
    with pytest.raises(UserError, match=r"hold no guided latents: .* collection\.guided={steps:3,guidance:2\.5}"):
        train(stored("pipeline.bundled=false"))


def test_a_collection_with_them_is_not_resumed_without(compose_job):
    collected(compose_job, "prompts.count=5", "collection.guided={steps:3,guidance:2.5}")
    with pytest.raises(UserError, match=r"guided="):
        collected(compose_job, "prompts.count=5")
