"""Copies the core to a program that cannot install this package: `python -m golden_noise.npnet.vendor [TARGET]`.

The copy imports torch, numpy, safetensors and, for networks with a timm backbone, timm. TARGET is the folder of the
copy, by default that of the nodes for ComfyUI. Files of an earlier copy that no longer belong there are removed.
"""

import argparse
import ast
import re
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CORE = PACKAGE / "npnet/core"
TARGET = "comfyui/core"
BELOW = ("errors", "noise", "weight_files")  # what the core needs of the rest of the package
HEADER = "# Vendored from {} by python -m golden_noise.npnet.vendor; do not edit.\n"
VENDORED = HEADER.split("{}")[0]
IMPORT = re.compile(r"^(\s*from )golden_noise(?:\.npnet\.core)?(?:\.(\w+))? import ", re.MULTILINE)


def copies() -> dict[str, str]:
    """The files of the copy, by name."""
    files = [*sorted(CORE.glob("*.py")), *(PACKAGE / f"{name}.py" for name in BELOW)]
    assert len({file.name for file in files}) == len(files), "two modules of one name"
    return {file.name: _copy(file, {other.stem for other in files}) for file in files}


def vendor(target: Path) -> None:
    """Makes the copy."""
    target.mkdir(parents=True, exist_ok=True)
    made = copies()
    for old in target.glob("*.py"):
        if old.name not in made and old.read_text("utf-8").startswith(VENDORED):
            old.unlink()
    for name, content in made.items():
        (target / name).write_text(content, "utf-8")


def _copy(file: Path, names: set[str]) -> str:
    """A module with relative imports in place of the package's."""
    text = IMPORT.sub(lambda found: f"{found[1]}.{found[2] or ''} import ", file.read_text("utf-8"))
    for node in ast.walk(ast.parse(text)):
        own = isinstance(node, ast.ImportFrom) and node.level > 0
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        else:
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        for module in modules:
            known = module in names if own else module.partition(".")[0] != PACKAGE.name
            assert known, f"{file.name} imports {module}, which is not copied"
    return HEADER.format(file.relative_to(PACKAGE.parent).as_posix()) + text


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m golden_noise.npnet.vendor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", nargs="?", default=TARGET, help="default: %(default)s")
    options = parser.parse_args(arguments)
    vendor(Path(options.target))
    print(f"{options.target}: {len(copies())} files")


if __name__ == "__main__":
    main()
