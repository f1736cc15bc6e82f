"""Run every script of this folder, each in a process of its own, and put the figures in one table.

The table is ``results/README.md``, beside one JSON file per script. ``make bench`` does it all.

    python benchmarks/run.py [--small] [script ...]
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from protocol import common_options, folder, verdict

HERE = Path(__file__).parent
SCRIPTS = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("protocol", "run"))


def run(script: str, arguments: list[str]) -> bool:
    print(f"--- {script}", flush=True)
    done = subprocess.run([sys.executable, str(HERE / f"{script}.py"), *arguments], check=False)
    if done.returncode:
        print(f"{script} failed", file=sys.stderr)
    return not done.returncode


def table(documents: dict[str, Any], small: bool = False) -> str:
    """All rows of the scripts' results, in Markdown; then where each was measured."""
    lines = ["# Figures", ""]
    if small:
        lines += ["A trial with tiny sizes and one round: the figures mean nothing.", ""]
    lines += [
        "A figure is the median over the rounds, a ratio one of medians of the same run. "
        "Made by `make bench`; the protocol is in `benchmarks/protocol.py`.",
        "",
        "| script | what | size | dtype | figure | goal | stretch | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    number = lambda value: "" if value is None else f"{value:.3g}"
    for script, document in documents.items():
        for entry in document["rows"]:
            unit = "" if entry["unit"] == "x" else f" {entry['unit']}"
            cells = [script, entry["what"], entry["size"], entry["dtype"]]
            cells += [number(entry["value"]) + unit, number(entry["goal"])]
            cells += [number(entry["stretch"]), "" if small else verdict(entry)]
            lines.append(f"| {' | '.join(cells)} |")
    alike: dict[str, list[str]] = {}
    for script, document in documents.items():
        machine = document["machine"]
        cells = [machine["date"], f"{machine['processor']}, {machine['cores']} cores"]
        cells += [", ".join(f"{name} {found}" for name, found in machine["versions"].items())]
        alike.setdefault(" | ".join(cells), []).append(f"{script} ({document['rounds']})")
    lines += ["", "| script (rounds) | measured | on | with |", "|---|---|---|---|"]
    lines += [f"| {', '.join(scripts)} | {cells} |" for cells, scripts in alike.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the benchmarks; all of them by default.")
    parser.add_argument("script", nargs="*", help=", ".join(SCRIPTS))
    common_options(parser)
    parsed = parser.parse_args()
    if unknown := set(parsed.script) - set(SCRIPTS):
        parser.error(f"no script {', '.join(sorted(unknown))}. Fix: choose from {SCRIPTS}.")
    results = folder(parsed)
    arguments = [f"--results={parsed.results}", *(["--small"] if parsed.small else [])]
    failed = [name for name in parsed.script or SCRIPTS if not run(name, arguments)]
    # What was measured before, and not again now, stays in the table under its own date.
    files = {name: results / f"{name}.json" for name in SCRIPTS if name not in failed}
    documents = {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}
    text = table(documents, parsed.small)
    (results / "README.md").write_text(text)
    print(f"\n{text}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
