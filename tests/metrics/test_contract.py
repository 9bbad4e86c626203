"""What every metric in conf/metric has to keep, on tiny random weights saved to disk."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from safetensors.torch import load_file, save_file

from golden_noise.errors import UserError
from golden_noise.images import from_pil, to_pil
from golden_noise.metrics.limits import CutsPrompts, prompts_cut
from golden_noise.shapes.metric import ShapesScore

from .configs import CAPTIONS, CHOICES, GENEVAL, settings

SOURCES = ("weights", "model", "processor", "tokenizer", "detector", "clip")


@pytest.fixture(scope="module", params=CHOICES, ids=[name for _, name in CHOICES])
def case(request, tiny):
    """(choice, name, metric, prompts)"""
    choice, name = request.param
    metric = instantiate(settings(choice, name, **tiny(choice)))
    return choice, name, metric, GENEVAL if choice == "geneval" else CAPTIONS


def close(found, expected, atol=1e-3):
    torch.testing.assert_close(found, expected, atol=atol, rtol=1e-4)


def test_scores_are_float32_on_the_cpu_and_in_range(case, images):
    _, _, metric, prompts = case
    scores = metric.score(prompts, images)
    assert scores.shape == (4,)
    assert scores.dtype == torch.float32
    assert scores.device.type == "cpu"
    assert scores.isfinite().all()
    assert not scores.requires_grad
    low, high = metric.range
    assert ((low <= scores) & (scores <= high)).all()
    assert isinstance(metric.version, str)
    assert metric.version


def test_a_batch_is_its_singles(case, images):
    _, _, metric, prompts = case
    singles = [metric.score([prompt], image[None]) for prompt, image in zip(prompts, images, strict=True)]
    close(metric.score(prompts, images), torch.cat(singles))


def test_order_is_kept(case, images):
    _, _, metric, prompts = case
    order = [2, 0, 3, 1]
    close(metric.score([prompts[i] for i in order], images[order]), metric.score(prompts, images)[order])


def test_twice_and_from_another_instance_is_the_same(case, tiny, images):
    choice, name, metric, prompts = case
    scores = metric.score(prompts, images)
    torch.manual_seed(1)
    other = instantiate(settings(choice, name, **tiny(choice)))
    assert torch.equal(metric.score(prompts, images), scores)
    assert torch.equal(other.score(prompts, images), scores)


def test_images_count_as_saved(case, images):
    _, _, metric, prompts = case
    close(metric.score(prompts, images), metric.score(prompts, from_pil(to_pil(images))), atol=1e-6)


def test_any_size_of_image(case):
    _, _, metric, prompts = case
    sizes = [(28, 28), (45, 31), (224, 100), (40, 1), (1, 40)]
    for size in [(32, 32)] if isinstance(metric, ShapesScore) else sizes:  # the miniature has one size
        images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
        assert metric.score(prompts[:2], images).isfinite().all()


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_other_kinds_of_images_count_as_rgb(case, images, mode):
    _, _, metric, prompts = case
    pictures = [picture.convert(mode) for picture in to_pil(images)]
    as_rgb = from_pil([picture.convert("RGB") for picture in pictures])
    assert torch.equal(metric.score(prompts, from_pil(pictures)), metric.score(prompts, as_rgb))


READ = {
    "pickscore": 16,
    "clipscore": 16,
    "hpsv2": 16,
    "hpsv21": 16,
    "mps": 16,
    "imagereward": 35,
    "reward": 16,
}  # tokens


def test_prompts_that_are_not_read_to_their_ends_are_counted(case, images):
    """A prompt of as many tokens as are read, with those that mark start and end, is judged to its end."""
    _, name, metric, _ = case
    if name not in READ:
        assert not isinstance(metric, CutsPrompts)
        return
    fits, longer = (" ".join(["red"] * (READ[name] - 2 + more)) for more in (0, 1))
    assert metric.limit == READ[name]
    assert metric.cut([fits, longer, longer, "a circle"]) == 2
    line = f"{name} reads {READ[name]} tokens: 1 of 2 prompts are longer, the rest of them is not judged"
    assert prompts_cut({name: metric}, [fits, longer, longer]) == [line]
    assert prompts_cut({name: metric}, [fits, "a circle"]) == metric.cut([]) * [line] == []
    one, two, whole = (metric.score([text], images[:1]) for text in (longer + " circle", longer + " square", fits))
    assert torch.equal(one, two)
    close(metric.score([longer], images[:1]), one)
    assert not torch.equal(metric.score([fits.replace("red", "blue")], images[:1]), whole)


@pytest.mark.parametrize(
    ("choice", "option"), [("pickscore", "model"), ("clipscore", "model"), ("geneval", "detector")]
)
def test_weights_that_a_folder_lacks_are_not_made_up(choice, option, tiny, tmp_path):
    folder = shutil.copytree(tiny(choice)[option], tmp_path / "folder")
    tensors = load_file(folder / "model.safetensors")
    lost = sorted(tensors)[len(tensors) // 2]
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    message = mistake(settings(choice, choice, **tiny(choice) | {option: str(folder)}))
    assert f"{folder} holds no weights for this" in message


def options(*names):
    """(choice, name, option) for those of the options that a metric has."""
    return [(*each, option) for each in CHOICES for option in names if option in settings(*each)]


@pytest.mark.parametrize(("choice", "name", "option"), options("dtype"))
def test_half_precision_is_close(choice, name, option, tiny, images):
    prompts = GENEVAL if choice == "geneval" else CAPTIONS
    exact, half = (
        instantiate(settings(choice, name, **tiny(choice), **{option: dtype})).score(prompts, images)
        for dtype in ("float32", "bfloat16")
    )
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() < 0.05 * max(1, exact.abs().max())


@pytest.mark.parametrize("missing", ["/no/such/place", "./no/such/place"])
@pytest.mark.parametrize(("choice", "name", "option"), options(*SOURCES))
def test_a_missing_place_costs_one_line(choice, name, option, tiny, missing):
    assert missing.removeprefix("./") in mistake(settings(choice, name, **tiny(choice) | {option: missing}))


class Harmful:
    def __reduce__(self):
        return (Path.mkdir, (Path("harmed"),))


@pytest.mark.parametrize("content", [Harmful(), b"", b"no weights"], ids=["harmful", "empty", "junk"])
@pytest.mark.parametrize(
    ("choice", "name", "option"),
    [
        (choice, choice, option)
        for choice, option in (("pickscore", "model"), ("aes", "model"), ("geneval", "detector"))
    ],
)
def test_a_folders_weights_are_read_as_tensors_only(choice, name, option, content, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(tiny(choice)[option], "folder")
    (tmp_path / "folder/model.safetensors").unlink()
    old = tmp_path / "folder/pytorch_model.bin"
    old.write_bytes(content) if isinstance(content, bytes) else torch.save({"logit_scale": content}, old)
    assert f"cannot load the metric's weights ./{folder}" in mistake(
        settings(choice, name, **tiny(choice) | {option: f"./{folder}"})
    )
    assert not (tmp_path / "harmed").exists()


def cache(folder, source, revision):
    """Lays a folder or file into the hub's cache as what was downloaded of ORG/NAME at a revision."""
    commit = str(len(revision)) * 40
    snapshot = folder / "models--ORG--NAME" / "snapshots" / commit
    (snapshot.parent.parent / "refs").mkdir(parents=True, exist_ok=True)
    (snapshot.parent.parent / "refs" / revision).write_text(commit)
    shutil.copytree(source, snapshot) if source.is_dir() else shutil.copy(source, mkdir(snapshot) / source.name)


def mkdir(folder):
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("choice", "name", "option"), [case for case in options(*SOURCES) if not case[0].startswith("shapes")]
)
def test_from_the_hub_at_the_revision_asked_for(choice, name, option, tiny, images, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    local, prompts = tiny(choice), GENEVAL if choice == "geneval" else CAPTIONS
    source = Path(local[option])
    cache(tmp_path, source, "v1.5")
    revision = f"{option}_revision" if f"{option}_revision" in settings(choice, name) else "revision"
    id = f"ORG/NAME/{source.name}" if source.is_file() else "ORG/NAME"
    metric = instantiate(settings(choice, name, **local | {option: id, revision: "v1.5"}))
    expected = instantiate(settings(choice, name, **local)).score(prompts, images)
    assert torch.equal(metric.score(prompts, images), expected)
    if revision == "revision":
        assert metric.version.endswith("@v1.5")
    assert "was not downloaded before" in mistake(settings(choice, name, **local | {option: id}))  # main was not


@pytest.mark.parametrize(("choice", "name", "option"), options("dtype", "device"))
def test_a_wrong_setting_costs_one_line(choice, name, option):
    value = {"dtype": "float8", "device": "cuda:99"}[option]
    assert value in mistake(settings(choice, name, **{option: value}))  # before the hub is asked for anything


def mistake(config):
    """The one line that a metric's config gives instead of a metric."""
    with pytest.raises(InstantiationException) as error:
        instantiate(config)
    assert isinstance(error.value.__cause__, UserError)
    assert "\n" not in str(error.value.__cause__)
    return str(error.value.__cause__)


@pytest.mark.parametrize(
    ("choice", "name", "option"), [case for case in options(*SOURCES) if not case[0].startswith("shapes")]
)
def test_what_the_hub_cannot_give_costs_one_line_at_once(choice, name, option, tiny):
    id = "ORG/NAME/FILE.pt" if option == "weights" else "ORG/NAME"
    message = mistake(settings(choice, name, **tiny(choice) | {option: id}))
    assert f"{id}: HF_HUB_OFFLINE is set, and it was not downloaded before" in message
