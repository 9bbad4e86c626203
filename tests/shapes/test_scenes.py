import numpy as np
import pytest

from golden_noise.shapes.scenes import (
    COLOURS,
    NUMBERS,
    OPENINGS,
    RELATIONS,
    SHAPES,
    SIZE,
    TASKS,
    Scene,
    Shape,
    coverage,
    render,
    requests,
    requests_by_task,
    sample_batch,
    sample_requests,
    sample_scene,
)

PER_TASK = {
    "single_object": len(OPENINGS) * 4,
    "two_object": len(OPENINGS) * 12,
    "counting": len(OPENINGS) * 4 * len(NUMBERS),
    "colors": len(OPENINGS) * 4 * 5,
    "position": 4 * 12 + 4 * 12 * 20,
    "color_attr": 12 * 20,
}


@pytest.fixture(scope="module")
def drawn():
    """(request, scene) of 300 draws."""
    rng = np.random.default_rng(0)
    return [(request, sample_scene(request, rng)) for request in sample_requests(rng, 300)]


def test_every_task_has_all_its_captions_and_none_twice():
    assert {task: len(found) for task, found in requests_by_task().items()} == PER_TASK
    assert len(requests()) == sum(PER_TASK.values())  # a caption of two tasks would be counted once
    assert all(text == request.text for text, request in requests().items())


def test_captions_say_what_is_asked_for():
    plural = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
    for text, request in requests().items():
        words = text.split()
        for part in request.parts:
            assert (part.shape if part.count == 1 else plural[part.shape]) in words, text
            assert part.colour is None or part.colour in words, text
            assert part.count == 1 or NUMBERS[part.count] in words, text
        assert request.relation is None or f" {request.relation} " in text


@pytest.mark.parametrize(
    "text", ["a circle", "a photo of three crosses", "a picture of a red cross", "a blue square left of a red triangle"]
)
def test_examples_of_captions(text):
    assert text in requests()


def test_scenes_hold_exactly_what_is_asked_for(drawn):
    for request, scene in drawn:
        wanted = [part for part in request.parts for _ in range(part.count)]
        assert [part.shape for part in wanted] == [shape.shape for shape in scene.shapes]
        assert all(part.colour in (None, shape.colour) for part, shape in zip(wanted, scene.shapes, strict=True))


def test_objects_lie_inside_and_apart(drawn):
    for _, scene in drawn:
        for i, shape in enumerate(scene.shapes):
            assert shape.radius < min(shape.x, shape.y, SIZE - shape.x, SIZE - shape.y)
            for other in scene.shapes[:i]:
                distance = max(abs(shape.x - other.x), abs(shape.y - other.y))
                assert distance > shape.radius + other.radius + 1


def test_relations_hold_in_the_image(drawn):
    compare = {
        "left of": lambda a, b: a.x < b.x,
        "right of": lambda a, b: a.x > b.x,
        "above": lambda a, b: a.y < b.y,  # y grows downwards
        "below": lambda a, b: a.y > b.y,
    }
    assert compare.keys() == RELATIONS.keys()
    related = [(request.relation, scene.shapes) for request, scene in drawn if request.relation]
    assert {relation for relation, _ in related} == compare.keys()
    assert all(compare[relation](*shapes) for relation, shapes in related)


def test_opposite_relations_are_opposite_directions():
    for one, other in (("left of", "right of"), ("above", "below")):
        assert np.array_equal(RELATIONS[one], -np.array(RELATIONS[other]))


def test_tasks_are_drawn_equally_often():
    drawn = sample_requests(np.random.default_rng(1), 3000)
    counts = [sum(request.task == task for request in drawn) for task in TASKS]
    assert max(abs(count - 500) for count in counts) < 5 * (3000 * 1 / 6 * 5 / 6) ** 0.5


def test_images_are_float32_between_0_and_1():
    drawn, images = sample_batch(np.random.default_rng(2), 50)
    assert len(drawn) == 50
    assert images.shape == (50, 3, SIZE, SIZE)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1


def test_same_seed_same_images():
    (first, images), (second, again), (_, other) = (sample_batch(np.random.default_rng(s), 8) for s in (3, 3, 4))
    assert first == second
    assert np.array_equal(images, again)
    assert not np.array_equal(images, other)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_is_drawn_at_its_place_in_its_colour(shape):
    image = render([Scene((Shape(shape, "purple", 20.5, 10.5, 5.0),), background=0.9)])[0]
    np.testing.assert_allclose(image[:, 10, 20] * 255, COLOURS["purple"], atol=0.01)
    np.testing.assert_allclose(image[:, :, :14], 0.9, atol=1e-6)
    np.testing.assert_allclose(image[:, 17:], 0.9, atol=1e-6)
    rows, columns = np.nonzero(image[1] < 0.5)
    assert 4 <= rows.max() - rows.min() <= 10
    assert 4 <= columns.max() - columns.min() <= 10


def test_an_empty_scene_is_plain():
    assert np.unique(render([Scene((), 0.5)])).tolist() == [0.5]


def test_order_of_the_scenes_is_kept(drawn):
    scenes = [scene for _, scene in drawn[:20]]
    singles = np.concatenate([render([scene]) for scene in scenes])
    np.testing.assert_allclose(render(scenes), singles, atol=1e-6)


def test_coverage_is_the_area():
    one = np.array([16.0], dtype=np.float32)
    radius = np.array([5.0], dtype=np.float32)
    areas = {"circle": np.pi * 25, "square": 81, "triangle": 0.5 * 9 * 10, "cross": 100 - 4 * (5 - 1.8) ** 2}
    for shape, area in areas.items():
        assert coverage(shape, one, one, radius).sum() == pytest.approx(area, rel=0.06), shape


def test_unknown_shape():
    with pytest.raises(ValueError, match="hexagon"):
        coverage("hexagon", *np.ones((3, 1), dtype=np.float32))
