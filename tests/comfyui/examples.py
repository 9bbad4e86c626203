"""The pack's example workflows, with the miniature in place of SDXL."""

import json
from pathlib import Path
from typing import Any

from tests.comfyui.engine import ROOT
from tests.comfyui.workflow import Workflow, api_form

FOLDER = ROOT / "comfyui/example_workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
# What the miniature was trained for, by the names of inputs.
SMALL = {"width": 64, "height": 64, "steps": 4, "cfg": 1.0, "scheduler": "ddim_uniform", "npnet": "miniature"}


def example(name: str, info: dict[str, Any]) -> Workflow:
    """An example in API form; `info` is what /object_info says."""
    return api_form(json.loads((FOLDER / f"{name}.json").read_text("utf-8")), info)


def on_miniature(workflow: Workflow, prompt: str) -> Workflow:
    """The same workflow with another loader, sizes and prompt."""
    for node in workflow.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node["class_type"], node["inputs"] = "LoadMiniature", {}
        typed = {name: SMALL[name] for name, value in node["inputs"].items() if name in SMALL and not _is_link(value)}
        node["inputs"] |= typed
        if node["inputs"].get("text"):
            node["inputs"]["text"] = prompt
    return workflow


def images(outputs: dict[str, Any], workflow: Workflow, base: Path) -> dict[str, Path]:
    """The files that a run has written, by their prefixes."""
    found = {workflow[name]["inputs"]["filename_prefix"]: each["images"][0] for name, each in outputs.items()}
    return {prefix: base / "output" / each["subfolder"] / each["filename"] for prefix, each in found.items()}


def _is_link(value: Any) -> bool:
    return isinstance(value, list)
