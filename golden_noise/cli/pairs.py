"""Tools for folders of noise pairs: `golden-noise pairs COMMAND`, `--help` for the commands.

Imports are late, so that `--help` does not wait for torch.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from golden_noise.cli.mistakes import run_command
from golden_noise.errors import UserError, one_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="golden-noise pairs", description="Tools for noise pairs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="check every shard against the index",
        description="Reads every shard of FOLDER to its end and names each bad file in one line. Exit code 1 if any.",
    )
    verify.add_argument("folder", type=_folder, metavar="FOLDER")
    verify.set_defaults(run=_verify)
    _add_import(commands.add_parser("import", help="make shards of a published set of .npz files"))
    export = commands.add_parser(
        "export",
        help="make a published set of .npz files from shards",
        description="Writes the accepted pairs of FOLDER as INDEX_SEED.npz files and pairs.jsonl to TARGET.",
    )
    export.add_argument("folder", type=_folder, metavar="FOLDER")
    export.add_argument("target", type=_target, metavar="TARGET")
    export.add_argument("--metrics", type=_names, default=[], metavar="A,B", help="which scores, in this order")
    export.set_defaults(run=_export)
    stats = commands.add_parser(
        "stats",
        help="acceptance and scores of a folder",
        description="Acceptance per task, means and quantiles of every metric's scores and gains, and what failed.",
    )
    stats.add_argument("folder", type=_folder, metavar="FOLDER")
    stats.add_argument("--html", type=Path, metavar="FILE", help="also write a page with histograms")
    stats.set_defaults(run=_stats)
    run_command(parser, arguments)


def _verify(options: argparse.Namespace) -> None:
    from golden_noise.pairs.index import ShardIndex
    from golden_noise.pairs.verify import problems

    bad = 0
    for problem in problems(options.folder):
        tqdm.write(problem)  # above the progress bar
        bad += 1
    if bad:
        sys.exit(1)
    print(f"{options.folder}: all files match {options.folder / 'index.json'}")
    if failed := sum(len(shard.failures) for shard in ShardIndex.load(options.folder).shards):
        print(f"{failed} prompts failed (`stats` shows why, collecting with mode=retry tries them again)")


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes the pairs of SOURCE (INDEX_SEED.npz files and .jsonl files with captions) as shards to TARGET, with the"
        " prompt embeddings of the chosen pipeline. Bad files are named and skipped."
    )
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("target", type=_target, metavar="TARGET")
    parser.add_argument(
        "--config", nargs="+", required=True, metavar="KEY=VALUE", help="as for collect: pipeline=sdxl device=cuda"
    )
    parser.add_argument("--all-file", action="store_true", help="read sub-folders too")
    parser.add_argument("--discard", action="store_true", help="reject pairs whose first score did not improve")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="JSON Lines for all pairs")
    parser.add_argument(
        "--shift", type=_shift, action="append", default=[], metavar="FOLDER=N", help="add N to a sub-folder's indices"
    )
    parser.add_argument("--metrics", type=_names, default=[], metavar="A,B", help="names of the scores, in order")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad file")
    parser.add_argument("--batch-size", type=_positive, default=16, metavar="N", help="prompts encoded at once")
    parser.add_argument("--shard-size", type=_positive, default=256, metavar="N", help="files per shard")
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> None:
    from hydra.utils import instantiate

    from golden_noise.collecting.job import pipeline_identity
    from golden_noise.pairs.published import PublishedSet, import_set

    bad = 0

    def on_bad(error: UserError) -> None:
        nonlocal bad
        if options.strict:
            raise error
        tqdm.write(f"skipped: {error}", file=sys.stderr)
        bad += 1

    config = _compose(options.config)
    identity = pipeline_identity(config)
    published = PublishedSet(
        options.source,
        identity["latent_shape"],
        on_bad,
        options.all_file,
        options.discard,
        options.captions,
        dict(options.shift),
        options.metrics,
    )
    settings = {"pipeline": identity, "model": {"source": config.pipeline.model.source}}
    encode = instantiate(config.pipeline.model).encode
    index = import_set(published, options.target, settings, encode, options.shard_size, options.batch_size)
    accepted, rejected = (sum(getattr(shard, name) for shard in index.shards) for name in ("samples", "rejected"))
    print(f"{options.target}: {accepted} pairs, {rejected} discarded, {bad} bad lines and files skipped")


def _compose(overrides: Sequence[str]) -> Any:
    from golden_noise.cli.config import job_config

    try:
        return job_config("collect", overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"--config: {one_line(error, 300)}") from error


def _shift(text: str) -> tuple[str, int]:
    folder, _, number = text.rpartition("=")
    return folder or ".", int(number)


def _names(text: str) -> list[str]:
    return text.split(",")


def _folder(text: str) -> Path:
    from golden_noise.urls import is_url

    if is_url(text):
        raise argparse.ArgumentTypeError(f"{text} is not a folder: copy it into one, as `aws s3 sync` does")
    return Path(text)


def _target(text: str) -> Path:
    from golden_noise.urls import is_url

    if is_url(text):
        raise argparse.ArgumentTypeError(f"{text} is not a folder: pairs are written to folders")
    return Path(text)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _export(options: argparse.Namespace) -> None:
    from golden_noise.pairs.published import export_set

    count = export_set(options.folder, options.target, options.metrics)
    print(f"{options.target}: {count} pairs")


def _stats(options: argparse.Namespace) -> None:
    from rich.console import Console

    from golden_noise.pairs.page import write_page
    from golden_noise.pairs.stats import acceptance_table, failure_table, failures, read_tried, score_tables

    tried, failed = read_tried(options.folder), failures(options.folder)
    console = Console(width=max(120, Console().width))  # a narrower one, or a pipe, would cut numbers off
    for table in (acceptance_table(tried), *score_tables(tried), *([failure_table(failed)] if failed else [])):
        console.print(table)
    if options.html:
        write_page(options.html, options.folder, tried, failed)
        print(f"page: {options.html.resolve()}")
