"""What `mode` does with the pairs of a folder before more are collected into it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from golden_noise.errors import UserError
from golden_noise.pairs.index import INDEX_NAME, ShardIndex, writing
from golden_noise.pairs.pair import prompts_digest
from golden_noise.pairs.upload import Upload
from golden_noise.prompts import Prompt
from golden_noise.sharing.claims import alone

_COLLECTED = re.compile(r"pairs-[0-9]{6}\.tar|\.pairs-[0-9]{6}\.(tar\.tmp|claim)|\.index\.json\.tmp")


def prepare(
    folder: Path,
    config: Mapping[str, Any],
    units: Sequence[Sequence[Prompt]],
    mode: str = "resume",
    upload: Upload | None = None,
) -> None:
    """Make a folder ready for collecting what it lacks.

    Args:
        config: resolved configuration, JSON values only.
        units: the prompts of every unit of work.
        mode: "resume" keeps what is there, of the same settings and prompts; "extend" too, and takes more prompts if
            the first ones are the same; "retry" redoes shards with failed prompts; "overwrite" deletes the pairs.
        upload: where the pairs are uploaded to; "overwrite" deletes them there, too.

    Raises:
        UserError: the folder cannot be written, or what is there does not fit.
    """
    if mode == "overwrite":
        delete_pairs(folder, upload)
    index = ShardIndex.open(folder, config, other_prompts=mode == "extend")
    _check_prompts(index, units, grown=mode == "extend")
    if mode == "retry":
        index.forget_failures()
    if upload:
        upload.begin()


def delete_pairs(folder: Path, upload: Upload | None = None) -> None:
    """Delete what was collected into a folder and uploaded from it, and nothing else. Imported pairs stay."""
    if not folder.exists():
        return
    with writing(folder), alone(folder, "pairs"):
        if _is_imported(folder):
            raise UserError(f"the pairs in {folder} were imported: choose another folder with data_dir=FOLDER")
        if upload:
            upload.clear()
        (folder / INDEX_NAME).unlink(missing_ok=True)  # first: if killed here, no index lists the rest
        for path in folder.iterdir():
            if _COLLECTED.fullmatch(path.name):
                path.unlink()


def _is_imported(folder: Path) -> bool:
    path = folder / INDEX_NAME
    if not path.exists():
        return False
    content = path.read_bytes()  # an index that cannot be read now may be of imported pairs
    try:
        return "published" in ShardIndex.parse(content, folder, path).config
    except UserError:
        return False


def _check_prompts(index: ShardIndex, units: Sequence[Sequence[Prompt]], grown: bool) -> None:
    """Compare the prompts that the shards were made of with those of this run."""
    advice = "choose another folder with data_dir=FOLDER, or give mode=overwrite"
    for shard in index.shards:
        prompts = units[shard.unit] if shard.unit < len(units) else ()
        path, recorded = index.folder / shard.name, shard.prompts_sha256
        if recorded and recorded != prompts_digest(prompts[: shard.tried]):
            raise UserError(f"{path} was collected from other prompts than these: {advice}")
        if grown and not recorded:
            raise UserError(f"{path} does not say which prompts it was collected from: {advice}")
        if recorded and shard.tried < len(prompts) and not grown:
            raise UserError(f"{index.folder} was collected from fewer prompts: add mode=extend to collect the others")
