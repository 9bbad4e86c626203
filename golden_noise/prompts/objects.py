"""Prompts from JSON and JSON Lines."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from golden_noise.errors import UserError
from golden_noise.prompts.row import CAPTION_COLUMNS, KNOWN_COLUMNS, Row, read_row

TEXTS = (*CAPTION_COLUMNS, "captions", "texts")  # keys of captions only
LISTS = (*TEXTS, "data", "items", "entries", "examples", "samples", "annotations")  # keys of all prompts


class _Doubled(Exception):
    """A key that an object has twice: JSON's parser would keep the last one."""


def read_json_lines(file: Path, text: str) -> Iterator[Row]:
    """An object per line; or, of lines that are none by themselves, one JSON document."""
    lines = _numbered(text)
    if len(lines) != 1 or not lines[0][1].startswith("{"):
        document = None if _is_object(lines) else _document(file, text)
        if isinstance(document, list | dict):
            yield from _document_rows(file, document)
            return
    for number, line in lines:
        yield from _object_row(f"{file}, line {number}", parse_object(file, number, line))


def read_json(file: Path, text: str) -> Iterator[Row]:
    """A document: a list, or a dictionary of prompts; or else an object per line."""
    document = _document(file, text)
    if isinstance(document, list | dict):
        yield from _document_rows(file, document)
        return
    lines = _numbered(text)
    if lines and not _is_object(lines):
        raise UserError(f"{file} is no JSON ({_fault(text)})")
    objects = [(number, parse_object(file, number, line)) for number, line in lines]
    if len(objects) == 1 and isinstance(objects[0][1], dict):
        yield from _document_rows(file, objects[0][1])
        return
    for number, entry in objects:
        yield from _object_row(f"{file}, line {number}", entry)


def parse_object(file: Path, number: int, line: str) -> Any:
    """A line as JSON, or as the Python literal that some published files hold; nothing in it is run.

    Raises:
        UserError: it is neither, or an object has a key twice.
    """
    try:
        return _parsed(line)
    except ValueError as error:
        raise UserError(f"{file}, line {number}: no JSON object ({error})") from error
    except RecursionError as error:
        raise UserError(f"{file}, line {number}: no JSON object (too deeply nested)") from error
    except _Doubled as error:
        raise UserError(f"{file}, line {number}: the key {error} is there twice") from error


def _parsed(line: str) -> Any:
    """A line as JSON or as a Python literal.

    Raises:
        ValueError: it is neither; what the JSON parser says of it.
        RecursionError, _Doubled: likewise.
    """
    try:
        return json.loads(line, object_pairs_hook=_object)
    except ValueError as error:  # JSONDecodeError, or a number of too many digits
        try:
            return _literal(line)
        except (ValueError, TypeError, SyntaxError, MemoryError):
            raise error from None


def _fault(text: str) -> str:
    try:
        return f"one {type(json.loads(text)).__name__}, no list and no object"
    except json.JSONDecodeError as error:
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        return str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Doubled(repr(next(key for key in keys if keys.count(key) > 1)))
    return found


def _literal(line: str) -> Any:
    tree = ast.parse(line, mode="eval")
    value = ast.literal_eval(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _object([(repr(ast.literal_eval(key)), None) for key in node.keys if key])
    return value


def _numbered(text: str) -> list[tuple[int, str]]:
    """The lines that are not blank with their numbers. Only a line feed ends a line: U+2028 may stand in a caption."""
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _is_object(lines: list[tuple[int, str]]) -> bool:
    """Whether the first line is an object by itself."""
    try:
        return bool(lines) and isinstance(_parsed(lines[0][1]), dict)
    except _Doubled:
        return True
    except (ValueError, RecursionError):
        return False


def _document(file: Path, text: str) -> Any:
    """The whole text as one JSON value; None if it is not one."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None
    except _Doubled as error:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return None  # several objects, of which a line's number will tell more
        raise UserError(f"{file}: the key {error} is there twice in one object") from error


def _document_rows(file: Path, document: Any) -> Iterator[Row]:
    if isinstance(document, dict):
        document = _entries(file, document)
    items = document.items() if isinstance(document, dict) else enumerate(document, start=1)
    for name, entry in items:
        place = f"{file}, entry {str(name)[:50]!r}" if isinstance(name, str) else f"{file}, entry {name}"
        yield from _object_row(place, {"caption": entry} if isinstance(entry, str) else entry)


def _entries(file: Path, document: dict[str, Any]) -> Any:
    """What a dictionary holds: one prompt, a list of them, or an id for each; certain forms only."""
    names = {name.strip().lower(): value for name, value in document.items()}
    if any(isinstance(names.get(name), str) for name in CAPTION_COLUMNS):
        _check_one_prompt(file, names)
        return [document]
    known = [name for name in KNOWN_COLUMNS if name in names]
    lists = [name for name, value in names.items() if _is_list_of_prompts(name, value)]
    if len(lists) == 1 and not {*known} - {*lists} and _is_without_captions(names, lists[0]):
        return names[lists[0]]
    kinds = {type(value) for value in document.values()}
    if not known and (kinds == {dict} or kinds == {str} or not kinds):
        return document
    shown = ", ".join(map(repr, list(document)[:5]))
    raise UserError(
        f"{file} is one JSON object without a caption (keys: {shown}): it may be a list, "
        "{id: prompt}, {id: {prompt, category}} or {prompts: [...]}"
    )


def _check_one_prompt(file: Path, names: dict[str, Any]) -> None:
    """Check that a dictionary with a caption is that one prompt, and does not hold many.

    Raises:
        UserError: all its values could be captions, or one holds objects with captions or a list of texts.
    """
    caption = next(name for name in CAPTION_COLUMNS if isinstance(names.get(name), str))
    many = [name for name, value in names.items() if _is_texts(value) or _holds_more(name, value)]
    if not many and all(isinstance(value, str | None) for value in names.values()):
        many = [name for name, value in names.items() if name not in KNOWN_COLUMNS and value]
    if many:
        raise _two_ways(str(file), caption, many[0])


def _two_ways(place: str, caption: str, other: str) -> UserError:
    return UserError(
        f"{place}: {caption!r} may be the one prompt here, or {other!r} hold more of them: "
        "give a list of objects, or remove the key that is not meant"
    )


def _is_captioned(value: Any) -> bool:
    """Whether a value is an object with a caption."""
    names = {str(name).strip().lower(): entry for name, entry in value.items()} if isinstance(value, dict) else {}
    return any(isinstance(names.get(name), str) for name in CAPTION_COLUMNS)


def _with_captions(value: Any) -> bool:
    """Whether a list or dictionary holds objects with captions, or is one."""
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return _is_captioned(value) or any(map(_is_captioned, entries))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, str) for entry in value)


def _is_list_of_prompts(name: str, value: Any) -> bool:
    """Whether a list holds captions: by its name, unless it has objects without any, or by the objects in it."""
    if not isinstance(value, list):
        return False
    return _with_captions(value) or (name in LISTS and not any(isinstance(entry, dict) for entry in value))


def _is_without_captions(names: dict[str, Any], prompts: str) -> bool:
    """Whether the values beside a list of prompts tell about the list, and not about its single prompts."""
    others = [value for name, value in names.items() if name != prompts]
    parallel = not _with_captions(names[prompts]) and any(isinstance(value, list) for value in others)
    return not parallel and not any(map(_with_captions, others))


def _object_row(place: str, entry: Any) -> Iterator[Row]:
    names = [str(name).strip().lower() for name in entry] if isinstance(entry, dict) else []
    if not {*CAPTION_COLUMNS} & {*names}:
        raise UserError(f"{place}: no caption (needs a key {', '.join(CAPTION_COLUMNS)})")
    if doubled := [name for name in KNOWN_COLUMNS if names.count(name) > 1]:
        raise UserError(f"{place}: the key {doubled[0]!r} is there twice")
    values = dict(zip(names, entry.values(), strict=True))
    caption = next(name for name in CAPTION_COLUMNS if name in values)
    if many := [name for name in LISTS if name != caption and _holds_more(name, values.get(name))]:
        raise _two_ways(place, caption, many[0])
    row = read_row(place, values)
    if row:
        yield row


def _holds_more(name: str, value: Any) -> bool:
    """Whether a value beside a caption may hold further prompts."""
    texts = _is_texts(value) or (isinstance(value, dict) and _is_texts([*value.values()]))
    return _with_captions(value) or (name in TEXTS and texts) or (name == "data" and _is_texts(value))
