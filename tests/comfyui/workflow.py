"""Workflows in API form, as Python writes them and as the browser's form of them."""

from typing import Any

Link = list[Any]  # of a node and the number of its output
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}  # types of inputs that are typed in


class Node(str):
    """The name of a node; its outputs are `node[0]`, `node[1]`, ..., and it stands for the first."""

    def __getitem__(self, output: Any) -> Any:
        return [str(self), output]


class Workflow(dict[str, dict[str, Any]]):
    """Nodes by name. `add` gives the next one a name of its own."""

    def add(self, kind: str, **inputs: Any) -> Node:
        """Adds a node: its inputs are outputs of other nodes, or values."""
        name = Node(len(self) + 1)
        linked = {key: value[0] if isinstance(value, Node) else value for key, value in inputs.items()}
        self[str(name)] = {"class_type": kind, "inputs": linked}
        return name


def api_form(page: dict[str, Any], info: dict[str, Any]) -> Workflow:
    """The API form of a workflow that was saved in the browser.

    Args:
        page: the saved workflow: nodes with inputs, links by number, and values of widgets in order.
        info: what /object_info says of the nodes.
    """
    links = {link[0]: [str(link[1]), link[2]] for link in page["links"]}
    workflow = Workflow()
    for node in page["nodes"]:
        if node["type"] not in info:  # a note
            continue
        values, inputs = list(node.get("widgets_values", [])), {}
        wired = {each["name"]: links[each["link"]] for each in node["inputs"] if each.get("link") is not None}
        for name, (kind, *options) in _inputs(info[node["type"]]).items():
            if isinstance(kind, list) or kind in WIDGETS:
                inputs[name] = values.pop(0)
                if options and options[0].get("control_after_generate"):
                    values.pop(0)  # what becomes of a seed after a run
            if name in wired:
                inputs[name] = wired[name]
        assert not values, f"{node['type']} has other widgets: {values} are left over"
        workflow[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return workflow


def _inputs(facts: dict[str, Any]) -> dict[str, Any]:
    return {n: facts["input"][part][n] for part in ("required", "optional") for n in facts["input_order"].get(part, [])}
