"""`python -m golden_noise pairs COMMAND`: the tools beside the four jobs; `--help` lists them."""

import sys

TOOLS = {"pairs": "tools for folders of noise pairs", "sweeps": "tables of many trainings"}


def main() -> None:
    """Runs a tool with the rest of the command line."""
    name, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if name == "pairs":
        from golden_noise.cli.pairs import main as tool
    elif name == "sweeps":
        from golden_noise.sweeps.commands import main as tool
    else:
        print("usage: python -m golden_noise TOOL ...; --help after a tool's name says more\n")
        print("\n".join(f"  {name:8}{about}" for name, about in TOOLS.items()))
        sys.exit(0 if name in ("-h", "--help") else 2)
    tool(rest)


if __name__ == "__main__":
    main()
