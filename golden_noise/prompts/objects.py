"""Prompts from JSON and JSON Lines."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from golden_noise.errors import UserError
from golden_noise.prompts.form import Form
from golden_noise.prompts.row import ANY, CAPTION_COLUMNS, KNOWN_COLUMNS, Row, read_row

TEXTS = (*CAPTION_COLUMNS, "captions", "texts")  # keys of captions only
LISTS = (*TEXTS, "data", "items", "entries", "examples", "samples", "annotations")  # keys of all prompts


class _Doubled(Exception):
    """A key that an object has twice: json would keep the last one."""


def read_json_lines(file: Path, text: str, form: Form = ANY) -> Iterator[Row]:
    """An object per line; or, if lines are not objects by themselves, one JSON document."""
    lines = _numbered(text)
    if len(lines) != 1 or not lines[0][1].startswith("{"):
        document = None if _is_object(lines) else _document(file, text)
        if isinstance(document, list | dict):
            yield from _document_rows(file, document, form)
            return
    for number, line in lines:
        yield from _object_row(f"{file}, line {number}", parse_object(file, number, line), form)


def read_json(file: Path, text: str, form: Form = ANY) -> Iterator[Row]:
    """A document: a list, or a dictionary of prompts; or else an object per line."""
    document, lines = _document(file, text), _numbered(text)
    if not isinstance(document, list | dict):
        if lines and not _is_object(lines):
            raise UserError(f"{file} is not JSON ({_fault(text)})")
        objects = [(number, parse_object(file, number, line)) for number, line in lines]
        if len(objects) != 1 or not isinstance(objects[0][1], dict):
            for number, entry in objects:
                yield from _object_row(f"{file}, line {number}", entry, form)
            return
        document = objects[0][1]
    yield from _document_rows(file, document, form)


def parse_object(file: Path, number: int, line: str) -> Any:
    """A line as JSON, or as the Python literal that some published files hold; no code in it runs.

    Raises:
        UserError: it is neither, or an object has a key twice.
    """
    try:
        return _parsed(line)
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else error
        raise UserError(f"{file}, line {number}: not a JSON object ({reason})") from error
    except _Doubled as error:
        raise UserError(f"{file}, line {number}: the key {error} occurs twice") from error


def _parsed(line: str) -> Any:
    """A line as JSON or as a Python literal; of one that is neither, the JSON parser's error."""
    try:
        return json.loads(line, object_pairs_hook=_object)
    except ValueError as error:  # JSONDecodeError, or a number of too many digits
        try:
            return _literal(line)
        except (ValueError, TypeError, SyntaxError, MemoryError):
            raise error from None


def _fault(text: str) -> str:
    try:
        return f"one {type(json.loads(text)).__name__}, neither a list nor an object"
    except json.JSONDecodeError as error:
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    except (ValueError, RecursionError) as error:
        return str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len({*keys}) < len(keys):
        raise _Doubled(repr(next(key for key in keys if keys.count(key) > 1)))
    return dict(pairs)


def _literal(line: str) -> Any:
    tree = ast.parse(line, mode="eval")
    value = ast.literal_eval(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _object([(repr(ast.literal_eval(key)), None) for key in node.keys if key])
    return value


def _numbered(text: str) -> list[tuple[int, str]]:
    """The lines that are not blank, numbered. Only a line feed ends a line: U+2028 may stand in a caption."""
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
            return None  # several objects: errors will name the line
        raise UserError(f"{file}: the key {error} occurs twice in one object") from error


def _document_rows(file: Path, document: Any, form: Form) -> Iterator[Row]:
    if isinstance(document, dict):
        document = _entries(file, document)
    items = document.items() if isinstance(document, dict) else enumerate(document, start=1)
    for name, entry in items:
        where = f"{file}, entry {name[:50]!r}" if isinstance(name, str) else f"{file}, entry {name}"
        yield from _object_row(where, {"caption": entry} if isinstance(entry, str) else entry, form)


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
    """Refuse a dictionary with a caption where all values could be captions, or one could hold further ones."""
    caption = next(name for name in CAPTION_COLUMNS if isinstance(names.get(name), str))
    many = [name for name, value in names.items() if _is_texts(value) or _holds_more(name, value)]
    if not many and all(isinstance(value, str | None) for value in names.values()):
        many = [name for name, value in names.items() if name not in KNOWN_COLUMNS and value]
    if many:
        raise _two_ways(str(file), caption, many[0])


def _two_ways(where: str, caption: str, other: str) -> UserError:
    return UserError(
        f"{where}: {caption!r} may be the one prompt here, or {other!r} hold more of them: "
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
    """Whether the values beside a list of prompts describe the list, and not its single prompts."""
    others = [value for name, value in names.items() if name != prompts]
    parallel = not _with_captions(names[prompts]) and any(isinstance(value, list) for value in others)
    return not parallel and not any(map(_with_captions, others))


def _object_row(where: str, entry: Any, form: Form) -> Iterator[Row]:
    names = [str(name).strip().lower() for name in entry] if isinstance(entry, dict) else []
    if not {*CAPTION_COLUMNS} & {*names}:
        raise UserError(f"{where}: no caption (needs a key {', '.join(CAPTION_COLUMNS)})")
    form.check(where, names)
    if doubled := [name for name in (*KNOWN_COLUMNS, *form.read) if names.count(name) > 1]:
        raise UserError(f"{where}: the key {doubled[0]!r} occurs twice")
    values = dict(zip(names, entry.values(), strict=True))
    caption = next(name for name in CAPTION_COLUMNS if name in values)
    if many := [name for name in LISTS if name != caption and _holds_more(name, values.get(name))]:
        raise _two_ways(where, caption, many[0])
    if row := read_row(where, values, form):
        yield row


def _holds_more(name: str, value: Any) -> bool:
    """Whether a value beside a caption may hold further prompts."""
    texts = _is_texts(value) or (isinstance(value, dict) and _is_texts([*value.values()]))
    return _with_captions(value) or (name in TEXTS and texts) or (name == "data" and _is_texts(value))
