"""Weights in prompts, as A1111's web UI reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden_noise.errors import UserError
from golden_noise.pipelines.prompt_syntax import parse


@pytest.mark.parametrize(
    ("prompt", "fragments"),
    [
        ("a red circle", [("a red circle", 1)]),
        ("", []),
        ("a (red) circle", [("a ", 1), ("red", 1.1), (" circle", 1)]),
        ("a ((red)) [circle]", [("a ", 1), ("red", 1.21), (" ", 1), ("circle", 1 / 1.1)]),
        ("(two words:1.3), rest", [("two words", 1.3), (", rest", 1)]),
        ("(x:.5)(y : 2 )(z:0)", [("x", 0.5), ("y ", 2), ("z", 0)]),
        ("((a:2) b:3)", [("a", 6), (" b", 3)]),
        ("([a])", [("a", 1.1 / 1.1)]),
        (r"a \(film\) \[x\] \\", [(r"a (film) [x] " + "\\", 1)]),
        (r"(\(a\):1.5)", [("(a)", 1.5)]),
        ("16:9, é: 東京", [("16:9, é: 東京", 1)]),
        ("(a: b:1.2)", [("a: b", 1.2)]),
        ("(a)(a)b", [("aa", 1.1), ("b", 1)]),
        ("()[]", []),
        ("line\nbreak (x)", [("line\nbreak ", 1), ("x", 1.1)]),
        ("trailing \\", [("trailing \\", 1)]),
        ("brand and break", [("brand and break", 1)]),
        ("(red:+1.3)(blue:-0)", [("red", 1.3), ("blue", 0)]),
        (r"(\(16:9\):1.2)", [("(16:9)", 1.2)]),
        ("(16:9 wide)(at 10:30pm:1.2)", [("16:9 wide", 1.1), ("at 10:30pm", 1.2)]),
        ("[(red: blue)] a|b", [("red: blue a|b", 1)]),
        (r"[a\: b \| c]", [(r"a\: b \| c", 1 / 1.1)]),
        ("smile :-) <3: <b>".replace(")", r"\)"), [("smile :-) <3: <b>", 1)]),
    ],
)
def test_fragments_and_weights(prompt, fragments):
    found = parse(prompt)
    assert [text for text, _ in found] == [text for text, _ in fragments]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in fragments])


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a (red circle", "( at letter 3 is never closed"),
        ("a red) circle", ") at letter 6 closes nothing"),
        ("a red:1.2) circle", ") at letter 10 closes nothing"),
        ("(a]", "] at letter 3 closes nothing"),
        ("[a:1.2)", ") at letter 7 closes nothing"),
        ("[[a]", "[ at letter 1 is never closed"),
        (":)", ") at letter 2 closes nothing; a bracket in the text is \\)"),
        ("(a:10.1)", "a weight is above 10"),
        ("(a:" + "9" * 400 + ")", "a weight is above 10"),
        ("(" * 30 + "a" + ")" * 30, "a weight is above 10"),
        ("[" * 51 + "a" + "]" * 51, "more than 50 brackets are open"),
        ("[red:blue:0.5]", "[red:blue:0.5] (editing) is not supported"),
        ("a [red|blue] circle", "[red|blue] (editing) is not supported"),
        ("é [(red):blue:0.5]", "[(red):blue:0.5] (editing) is not supported"),
        ("[(red:1.2):0.3]", "[(red:1.2):0.3] (editing)"),
        ("[(red)|blue]", "[(red)|blue] (editing)"),
        ("([red:[blue]:0.5]:1.2)", "[red:[blue]:0.5] (editing)"),
        ("[" + "(a)" * 9999 + "|b]", "(editing)"),
        ("東 (red:-1)", ":-1) at letter 7 is below 0"),
        ("(red:1,3)", ":1,3) at letter 5 is no weight"),
        ("(red: 1e9 )", ": 1e9 ) at letter 5 is no weight"),
        ("(red:nan)", ":nan) at letter 5 is no weight"),
        ("(red:-Inf)", ":-Inf) at letter 5 is no weight"),
        ("(red:1.3.1)", ":1.3.1) at letter 5 is no weight"),
        ("(red:\u22121)", "at letter 5 is no weight"),  # a minus sign that is no hyphen
        ("(red:" + "1" * 9999 + "x)", "at letter 5 is no weight"),
        ("<lora:style:0.8> a cat", "pipeline.model.loras adds adapters"),
        ("<LoRA:x:1>", "pipeline.model.loras adds adapters"),
        ("<hypernetwork:x:1>", "pipeline.model.loras adds adapters"),
        ("a cat BREAK a dog", "BREAK (chunks and joint prompts) is not supported"),
        ("a cat AND a dog", "AND (chunks"),
        ("(" * 100_000, "more than 50 brackets"),
    ],
)
def test_what_cannot_be_read_for_certain_is_named(prompt, words):
    with pytest.raises(UserError) as raised:
        parse(prompt)
    message = str(raised.value)
    assert message.startswith("prompt ") and words in message and "\n" not in message and len(message) < 300


@given(st.text(alphabet="ab ()[]\\:|.,+-12é", max_size=30))
def test_any_text_gives_fragments_or_one_line(prompt):
    try:
        found = parse(prompt)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(text and 0 <= weight <= 10 for text, weight in found)


@given(st.text(max_size=30))
def test_text_without_brackets_is_itself(prompt):
    plain = "".join(letter for letter in prompt if letter not in "()[]\\<>").replace("AND", "").replace("BREAK", "")
    assert parse(plain) == ([(plain, 1.0)] if plain else [])
