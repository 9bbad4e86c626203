"""GenEval's prompts and rules on made-up detections, and its detector and colors on tiny models."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPModel, Mask2FormerForUniversalSegmentation

from golden_noise.errors import UserError
from golden_noise.images import to_pil
from golden_noise.metrics.clip import clip_pixels
from golden_noise.metrics.geneval import GenEval, as_instance
from golden_noise.metrics.geneval_tasks import COLORS, NAMES, Instance, Request, Task, fulfils, parse, relations


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("a photo of a bench", Task((Request("bench"),))),
        ("a photo of an orange", Task((Request("orange"),))),
        ("a photo of a teddy bear", Task((Request("teddy bear"),))),
        ("a photo of a toothbrush and a snowboard", Task((Request("toothbrush"), Request("snowboard")))),
        ("a photo of three handbags", Task((Request("handbag", 3),), exact=True)),
        ("a photo of four benchs", Task((Request("bench", 4),), exact=True)),
        ("a photo of two wine glasses", Task((Request("wine glass", 2),), exact=True)),
        ("a photo of four buses", Task((Request("bus", 4),), exact=True)),
        ("a photo of a white scissors", Task((Request("scissors", color="white"),))),
        ("a photo of an orange cow", Task((Request("cow", color="orange"),))),
        ("a photo of a red orange", Task((Request("orange", color="red"),))),
        ("a photo of a dog right of a teddy bear", Task((Request("dog"), Request("teddy bear")), "right of")),
        ("a photo of a suitcase above a skis", Task((Request("suitcase"), Request("skis")), "above")),
        (
            "a photo of a red orange and a purple broccoli",
            Task((Request("orange", color="red"), Request("broccoli", color="purple"))),
        ),
    ],
)
def test_prompts_are_understood(prompt, task):
    assert parse(prompt) == task


def test_coco_has_80_classes():
    assert len(NAMES) == len(set(NAMES)) == 80
    assert (NAMES[0], NAMES[16], NAMES[49], NAMES[79]) == ("person", "dog", "orange", "toothbrush")  # COCO's labels


@pytest.mark.parametrize(
    "prompt", ["a red circle", "a photo of a unicorn", "a photo of a dog.", "a photo of five dogs", ""]
)
def test_other_prompts_are_refused(prompt):
    with pytest.raises(UserError, match="GenEval's prompts"):
        parse(prompt)


def found(name, score=0.95, box=(0, 0, 10, 10), color="red"):
    detection = Instance(name, score, box, np.ones((1, 1), bool))
    COLOR_OF[id(detection)] = color
    KEPT.append(detection)
    return detection


COLOR_OF, KEPT = {}, []


def judge(prompt, *detections):
    return fulfils(parse(prompt), detections, lambda each: COLOR_OF[id(each)])


def test_one_object():
    assert judge("a photo of a dog", found("dog", 0.31))
    assert judge("a photo of a dog", found("dog"), found("dog"), found("cat"))
    assert not judge("a photo of a dog", found("dog", 0.3))
    assert not judge("a photo of a dog", found("cat"))
    assert not judge("a photo of a dog")


def test_two_objects():
    assert judge("a photo of a dog and a cat", found("dog"), found("cat"))
    assert not judge("a photo of a dog and a cat", found("dog"), found("dog"))


def test_counting_is_exact_and_wants_certainty():
    three = [found("dog", 0.91) for _ in range(3)]
    assert judge("a photo of three dogs", *three)
    assert judge("a photo of three dogs", *three, found("dog", 0.9), found("cat"))
    assert not judge("a photo of three dogs", *three, found("dog", 0.92))
    assert not judge("a photo of four dogs", *three, found("dog", 0.9))


def test_colors_are_those_of_the_most_certain_object():
    red, blue = found("dog", 0.9, color="red"), found("dog", 0.8, color="blue")
    assert judge("a photo of a red dog", blue, red)
    assert not judge("a photo of a blue dog", blue, red)
    cat = found("cat", color="blue")
    assert judge("a photo of a red dog and a blue cat", red, cat)
    assert not judge("a photo of a blue dog and a red cat", red, cat)


def test_positions_are_those_of_the_most_certain_objects():
    left, right = found("dog", 0.9, (0, 0, 10, 10)), found("cat", 0.9, (30, 0, 40, 10))
    assert judge("a photo of a dog left of a cat", left, right)
    assert judge("a photo of a cat right of a dog", left, right)
    assert not judge("a photo of a dog right of a cat", left, right)
    assert not judge("a photo of a dog above a cat", left, right)
    assert not judge("a photo of a dog left of a cat", left, right, found("cat", 0.99, (0, 30, 10, 40)))


@pytest.mark.parametrize(
    ("first", "second", "sides"),
    [
        ((0, 0, 10, 10), (30, 0, 40, 10), {"left of"}),
        ((0, 0, 10, 10), (0, 30, 10, 40), {"above"}),
        ((0, 0, 10, 10), (0, 0, 10, 10), set()),
        ((0, 0, 10, 10), (2, 0, 12, 10), set()),  # 2 - 0.1 * 20 leaves nothing
        ((0, 0, 10, 10), (3.9, 0, 13.9, 10), set()),  # 1.9 of 3.9 is less than half
        ((0, 0, 10, 10), (4.1, 0, 14.1, 10), {"left of"}),
        ((0, 0, 10, 10), (30, 30, 40, 40), {"left of", "above"}),  # 28 of 42.4 on either axis
        ((0, 0, 100, 10), (30, 30, 130, 40), {"above"}),  # the width shortens 30 to 10
    ],
)
def test_relations(first, second, sides):
    assert relations(first, second) == sides


boxes = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 40)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(boxes, boxes)
def test_relations_are_mirrored(first, second):
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    assert {opposite[side] for side in relations(first, second)} == relations(second, first)
    turned = [(b[1], b[0], b[3], b[2]) for b in (first, second)]
    axis = {"left of": "above", "right of": "below", "above": "left of", "below": "right of"}
    assert {axis[side] for side in relations(first, second)} == relations(*turned)


@pytest.fixture(scope="module")
def metric(detector, clip):
    return GenEval(str(detector), str(clip), side=64, device="cpu")


def test_boxes_hold_their_masks():
    mask = torch.zeros(6, 9)
    mask[2:4, 3:8] = 1
    mask[3, 1] = 1
    detection = as_instance({"label_id": 16, "score": 0.5}, mask)
    assert (detection.name, detection.score, detection.box) == ("dog", 0.5, (1, 2, 8, 4))
    assert detection.mask.sum() == 11


def test_detections_are_the_models_own(metric, detector, images):
    """Scores are class probability times the mean probability inside the mask."""
    model = Mask2FormerForUniversalSegmentation.from_pretrained(detector).eval()
    inputs = metric.processor(to_pil(images), size=metric.size, return_tensors="pt")
    assert inputs.pixel_values.shape == (4, 3, 64, 64)
    with torch.no_grad():
        outputs = model(**inputs)
    logits = torch.nn.functional.interpolate(outputs.masks_queries_logits, (384, 384), mode="bilinear")
    for own, picture in zip(logits, metric.detect(to_pil(images)), strict=True):
        inside = [(mask.sigmoid() * (mask > 0)).sum() / (mask > 0).sum().clamp(min=1) for mask in own]
        assert {each.name for each in picture} == {"dog"}
        scores = sorted(each.score for each in picture)
        torch.testing.assert_close(scores, sorted(float(p) for p in inside if p > 0), atol=1e-3, rtol=0)
        assert all(each.mask.shape == (32, 32) for each in picture)


def test_scores_follow_the_detections(metric, images):
    assert metric.score(["a photo of a dog"] * 4, images).tolist() == [1.0] * 4
    assert metric.score(["a photo of a cat"] * 4, images).tolist() == [0.0] * 4
    picture = to_pil(images[:1])[0]
    best = max(metric.detect([picture])[0], key=lambda each: each.score)
    color = metric.color_of(picture, best)
    other = next(each for each in COLORS if each != color)
    prompts = [f"a photo of a {each} dog" for each in (color, other)]
    assert metric.score(prompts, images[[0, 0]]).tolist() == [1.0, 0.0]


def test_colors_are_clips_choice_for_the_cut_out(metric, clip):
    """The object's place in the picture and what surrounds it make no difference."""
    picture = Image.effect_noise((40, 30), 90).convert("RGB")
    mask = np.zeros((30, 40), bool)
    mask[5:20, 10:25] = True
    mask[5:10, 10:15] = False
    cut_out = np.where(mask[..., None], np.array(picture), 0x99)[5:20, 10:25].astype(np.uint8)
    model = CLIPModel.from_pretrained(clip).eval()
    pixels = clip_pixels(torch.from_numpy(cut_out).permute(2, 0, 1)[None] / 255, 28)
    templates = ("a photo of a {} dog", "a photo of a {}-colored dog", "a photo of a {} object")
    texts = [template.format(color) for color in COLORS for template in templates]
    with torch.no_grad():
        image = model.get_image_features(pixels).pooler_output[0]
        text = model.get_text_features(**metric.clip.tokens(texts)).pooler_output
    text = (text / text.norm(dim=-1, keepdim=True)).reshape(10, 3, -1).mean(1)
    expected = COLORS[int((text @ image / text.norm(dim=-1)).argmax())]
    assert metric.color_of(picture, Instance("dog", 0.9, (10, 5, 25, 20), mask)) == expected


def test_a_prompt_of_another_kind_costs_one_line(metric, images):
    with pytest.raises(UserError, match="a red circle"):
        metric.score(["a photo of a dog", "a red circle"], images[:2])


def test_a_detector_of_other_classes_is_refused(detector, clip, tmp_path):
    model = Mask2FormerForUniversalSegmentation.from_pretrained(detector, num_labels=3, ignore_mismatched_sizes=True)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text((detector / "preprocessor_config.json").read_text())
    with pytest.raises(UserError, match="80"):
        GenEval(str(tmp_path), str(clip), side=64, device="cpu")
