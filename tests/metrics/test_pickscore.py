import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel

from golden_noise.errors import UserError
from golden_noise.metrics.pickscore import PickScore
from golden_noise.shapes.models import build_reward

PROMPTS = ["a red circle", "two crosses", "a red circle", "a blue square left of a green triangle"]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    clip, processor = build_reward()
    clip.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def metric(folder):
    return PickScore(str(folder), device="cpu")


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def normalised(images):
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return ((images * 255).round() / 255 - mean) / std


def close(found, expected, atol=1e-4):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def test_is_clips_scaled_cosine(metric, folder, images):
    clip = CLIPModel.from_pretrained(folder).eval()
    scores = metric.score(PROMPTS, images)
    tokens = [metric.clip.tokenizer(text, padding="max_length", max_length=16).input_ids for text in PROMPTS]
    with torch.no_grad():
        logits = clip(input_ids=torch.tensor(tokens), pixel_values=normalised(images)).logits_per_image
    close(scores, logits.diagonal())
    assert scores.shape == (4,)
    assert scores.dtype == torch.float32
    assert scores.std() > 1e-2  # a metric that is constant would agree with many things


def test_is_the_cosine_by_hand(metric, images):
    clip = metric.clip.model
    with torch.no_grad():
        text = clip.get_text_features(**metric.clip.tokens(PROMPTS[:2])).pooler_output.double().numpy()
        image = clip.get_image_features(normalised(images[:2])).pooler_output.double().numpy()
    cosine = (text * image).sum(1) / np.sqrt((text**2).sum(1) * (image**2).sum(1))
    scale = np.exp(clip.logit_scale.item())
    close(metric.score(PROMPTS[:2], images[:2]), torch.from_numpy(scale * cosine).float())
    assert metric.range[0] <= -scale < scale <= metric.range[1]


def test_batch_is_its_singles(metric, images):
    singles = [metric.score([prompt], image[None]) for prompt, image in zip(PROMPTS, images, strict=True)]
    close(metric.score(PROMPTS, images), torch.cat(singles))


def test_order_is_kept(metric, images):
    order = [2, 0, 3, 1]
    close(metric.score([PROMPTS[i] for i in order], images[order]), metric.score(PROMPTS, images)[order])


def test_repeated_prompts_score_alike(metric, images):
    scores = metric.score(["a circle"] * 3, images[[0, 1, 0]])
    close(scores[0], scores[2])
    assert (scores[0] - scores[1]).abs() > 1e-4


def test_images_count_as_saved(metric, images):
    eight_bit = (images * 255).round() / 255
    close(metric.score(PROMPTS, images), metric.score(PROMPTS, eight_bit), atol=1e-6)
    close(metric.score(PROMPTS, images * 3 - 1), metric.score(PROMPTS, (images * 3 - 1).clamp(0, 1)), atol=1e-6)


def test_long_prompts_are_cut_at_the_models_length(metric, images):
    words = ["red", "cross", "blue", "square"] * 10
    full, cut, shorter = (" ".join(words[:count]) for count in (40, 14, 13))  # 16 tokens with start and end
    scores = metric.score([full, cut, shorter], images[[0, 0, 0]])
    close(scores[0], scores[1])
    assert (scores[0] - scores[2]).abs() > 1e-4


def test_wide_images_are_cropped_at_the_centre(metric):
    wide = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(2))
    close(metric.score(["a circle"], wide), metric.score(["a circle"], wide[..., 8:40]))
    close(metric.score(["a circle"], wide.mT), metric.score(["a circle"], wide[..., 8:40].mT))


def test_large_images_are_resized_as_pil_does(metric):
    large = torch.rand(1, 3, 80, 80, generator=torch.Generator().manual_seed(3))
    picture = Image.fromarray((large[0] * 255).round().byte().permute(1, 2, 0).numpy())
    small = torch.from_numpy(np.array(picture.resize((32, 32), Image.Resampling.BICUBIC))).permute(2, 0, 1)[None] / 255
    close(metric.score(["a circle"], large), metric.score(["a circle"], small))


def test_processor_may_lie_elsewhere(metric, folder, tmp_path, images):
    metric.clip.model.save_pretrained(tmp_path)
    apart = PickScore(str(tmp_path), processor=str(folder), device="cpu")
    assert torch.equal(apart.score(PROMPTS, images), metric.score(PROMPTS, images))


def test_version_names_weights_and_revision(folder):
    assert PickScore(str(folder), device="cpu").version == f"{folder.name}@main"


@pytest.mark.parametrize("model", ["nobody/no-such-model", "a/b c", "/no/such/folder"])
def test_missing_weights(model):
    with pytest.raises(UserError) as error:
        PickScore(model, device="cpu")
    assert model in str(error.value)
    assert "\n" not in str(error.value)


def test_folder_without_weights(tmp_path):
    with pytest.raises(UserError, match="metric"):
        PickScore(str(tmp_path), device="cpu")
