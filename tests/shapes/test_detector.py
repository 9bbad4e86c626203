from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from golden_noise.shapes.detector import UPSAMPLING, DetectedShape, _enlarging, detect, fulfilment, passes
from golden_noise.shapes.scenes import (
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZE,
    Scene,
    Shape,
    render,
    requests,
    sample_batch,
    sample_scene,
)

CENTRES = [(8, 8), (24, 8), (8, 24), (24, 24)]


@pytest.fixture(scope="module")
def drawn():
    """Requests of 300 drawn scenes and what is detected in their images."""
    drawn, images = sample_batch(np.random.default_rng(0), 300)
    return drawn, [detect(image) for image in images]


def found(*objects: tuple[str, str], overlap: float = 1.0) -> list[DetectedShape]:
    """Ideal detections in a row from left to right."""
    return [DetectedShape(shape, colour, 8.0 + 8 * i, 16.0, overlap) for i, (colour, shape) in enumerate(objects)]


def scene(*objects: tuple[str, str]) -> np.ndarray:
    """Image of objects (colour, shape) in the corners."""
    shapes = [Shape(shape, colour, *centre, 5.0) for (colour, shape), centre in zip(objects, CENTRES, strict=False)]
    return render([Scene(tuple(shapes), 0.95)])[0]


def test_every_drawn_scene_passes(drawn):
    assert all(passes(request, detections) for request, detections in zip(*drawn, strict=True))


def test_few_scenes_pass_for_another_caption(drawn):
    asked, detections = drawn
    others = [asked[i] for i in np.random.default_rng(1).permutation(len(asked))]
    rate = np.mean([passes(o, d) for o, d, r in zip(others, detections, asked, strict=True) if o != r])
    assert rate < 0.10


def test_drawn_scenes_have_nearly_full_soft_scores(drawn):
    scores = np.array([fulfilment(request, detections) for request, detections in zip(*drawn, strict=True)])
    assert scores.min() > 0.8
    assert scores.max() <= 1
    assert scores.mean() > 0.93


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_finds_shape_colour_and_place(shape, colour):
    (detection,) = detect(render([Scene((Shape(shape, colour, 20.0, 12.0, 5.0),), 0.9)])[0])
    assert (detection.shape, detection.colour) == (shape, colour)
    assert detection.x == pytest.approx(20, abs=0.4)
    assert detection.y == pytest.approx(12, abs=1.0)  # a triangle's centre is not that of its box
    assert 0.8 < detection.overlap <= 1


def test_finds_touching_objects_of_other_colours():
    pair = Scene((Shape("square", "red", 10, 16, 5), Shape("square", "blue", 19, 16, 5)), 0.9)
    assert sorted(d.colour for d in detect(render([pair])[0])) == ["blue", "red"]


@pytest.mark.parametrize(
    "image", [np.ones((3, SIZE, SIZE)), np.zeros((3, SIZE, SIZE)), np.full((3, SIZE, SIZE), np.nan)]
)
def test_nothing_is_found_in_nothing(image):
    assert detect(image) == []


def test_specks_are_no_objects():
    image = np.ones((3, SIZE, SIZE), dtype=np.float32)
    image[:, 10:13, 10:13] = np.array(COLOURS["red"])[:, None, None] / 255
    assert detect(image) == []


def test_bars_are_no_squares():
    image = np.ones((3, SIZE, SIZE), dtype=np.float32)
    image[:, 10:14, 4:28] = np.array(COLOURS["red"])[:, None, None] / 255
    assert [detection.shape for detection in detect(image)] == ["unknown"]


def test_soft_edges_and_noise_are_tolerated(drawn):
    rng = np.random.default_rng(0)
    asked, images = sample_batch(rng, 50)
    soft = [ndimage.gaussian_filter(image, (0, 0.5, 0.5)) + rng.normal(0, 0.02, image.shape) for image in images]
    assert np.mean([passes(r, detect(image)) for r, image in zip(asked, soft, strict=True)]) >= 0.9


@pytest.mark.parametrize("side", [8, SIZE, 33])
def test_enlarging_is_bilinear_zooming(side):
    image = np.random.default_rng(0).random((side, side))
    zoomed = ndimage.zoom(image, UPSAMPLING, order=1, grid_mode=True, mode="nearest")
    np.testing.assert_allclose(_enlarging(side) @ image @ _enlarging(side).T, zoomed, atol=1e-12)


@pytest.mark.parametrize(
    "text, right, wrong",
    [
        ("a circle", ["red circle"], [[], ["red square"], ["red circle", "red circle"], ["red circle", "blue cross"]]),
        ("a red circle", ["red circle"], [["blue circle"], ["red square"], []]),
        (
            "three crosses",
            ["red cross", "blue cross", "red cross"],
            [["red cross"] * 2, ["red cross"] * 4, ["red cross", "red cross", "red circle"]],
        ),
        (
            "a red circle and a blue square",
            ["red circle", "blue square"],
            [["blue circle", "red square"], ["red circle"], ["red circle", "blue square", "blue square"]],
        ),
        ("a circle and a square", ["red circle", "red square"], [["red circle"] * 2, ["red circle", "red cross"]]),
        (
            "a circle left of a square",
            ["red circle", "red square"],
            [["red square", "red circle"], ["red circle"], ["red circle", "red cross"]],
        ),
    ],
)
def test_verdicts_of_images(text, right, wrong):
    def verdict(objects):
        return passes(requests()[text], detect(scene(*(tuple(each.split()) for each in objects))))

    assert verdict(right)
    assert not any(verdict(objects) for objects in wrong)


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_need_their_direction(relation):
    request = requests()[f"a circle {relation} a square"]
    direction = np.array(RELATIONS[relation])

    def verdict(offset) -> bool:
        x, y = 16 + 8 * np.array(offset)
        return passes(
            request, [DetectedShape("circle", "red", x, y, 1.0), DetectedShape("square", "red", 16.0, 16.0, 1.0)]
        )

    across = direction[::-1]
    assert verdict(direction)
    assert verdict(direction + 1.5 * across)  # 56 degrees
    assert not verdict(direction + 2 * across)  # 63 degrees
    assert not verdict(across)
    assert not verdict(-direction)


def test_order_of_detections_does_not_matter(drawn):
    for request, detections in zip(*drawn, strict=True):
        assert passes(request, detections[::-1])
        assert fulfilment(request, detections[::-1]) == pytest.approx(fulfilment(request, detections), abs=0.05)


objects = st.tuples(st.sampled_from(list(COLOURS)), st.sampled_from([*SHAPES, "unknown"]))


@given(st.sampled_from(list(requests().values())), st.lists(objects, max_size=6), st.floats(0, 1))
@settings(deadline=None)
def test_soft_score_is_a_share_and_full_only_if_strict_passes(request, seen, overlap):
    detections = found(*seen, overlap=overlap)
    score = fulfilment(request, detections)
    assert 0 <= score <= 1
    assert score < 1 or passes(request, detections)


@given(st.sampled_from(list(requests().values())), st.integers(0, 2**32 - 1), st.integers(0, 3))
@settings(deadline=None)
def test_every_fault_costs_soft_score_and_the_strict_pass(request, seed, which):
    shapes = sample_scene(request, np.random.default_rng(seed)).shapes
    right = [DetectedShape(shape.shape, shape.colour, shape.x, shape.y, 1.0) for shape in shapes]
    assert passes(request, right)
    full = fulfilment(request, right)
    which %= len(right)
    faults = {
        "missing": right[:which] + right[which + 1 :],
        "extra": [*right, DetectedShape("circle", "red", 1.0, 1.0, 1.0)],
        "shape": [*right[:which], replace(right[which], shape="unknown"), *right[which + 1 :]],
    }
    if request.parts[0].colour:
        wrong = next(colour for colour in COLOURS if colour not in {shape.colour for shape in shapes})
        faults["colour"] = [*right[:which], replace(right[which], colour=wrong), *right[which + 1 :]]
    if request.relation:
        first, second = right
        faults["relation"] = [replace(first, x=second.x, y=second.y), replace(second, x=first.x, y=first.y)]
    for name, detections in faults.items():
        assert not passes(request, detections), name
        assert fulfilment(request, detections) < full - 0.05, name


@pytest.mark.parametrize("text", ["two circles", "a red circle above a blue square", "a photo of a cross"])
def test_soft_score_falls_step_by_step(text):
    request = requests()[text]
    shapes = sample_scene(request, np.random.default_rng(0)).shapes
    steps = [[DetectedShape(s.shape, s.colour, s.x, s.y, overlap) for s in shapes] for overlap in (1.0, 0.9, 0.75)]
    steps += [steps[-1] + [DetectedShape("cross", "green", 1.0, 1.0, 0.75)] * extra for extra in (1, 2)]
    scores = [fulfilment(request, detections) for detections in steps]
    assert scores[0] > scores[1] > scores[2] > scores[3] >= scores[4]
