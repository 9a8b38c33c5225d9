"""Memory and processor time of a card, and of a check, of large published data sets, on files of their size and form.

Files are generated once and stay in --folder: 0.9 GB for movielens-32m, 11 GB for amazon-2023.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine, table, written

RESULTS = Path(__file__).parents[1] / "results"
LINES = {"movielens-32m": 32_000_204, "amazon-2023": 20_000_000}
_FILES = {"movielens-32m": ("ratings.csv", "movies.csv"), "amazon-2023": ("reviews.jsonl", "metadata.jsonl")}


def main() -> None:
    """Generate what is missing, run the verbs one after another, write the result file and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the generated files lie")
    parser.add_argument("--sets", nargs="+", choices=LINES, default=list(LINES), help="data sets")
    parser.add_argument("--share", type=float, default=1.0, help="of the published number of lines")
    parser.add_argument("--out", type=Path, default=RESULTS / "sizes.json")
    options = parser.parse_args()
    rows = []
    for name in options.sets:
        folder, lines = options.folder / name, int(LINES[name] * options.share)
        if not (folder / "whole").exists():
            # A process of its own, because a child inherits the peak of the process that starts it.
            code = f"from benchmarks.ingest.simulate import WRITERS; WRITERS[{name!r}]({str(folder)!r}, {lines})"
            subprocess.run([sys.executable, "-c", code], check=True)
            (folder / "whole").touch()
        rows += [{"set": name, "lines": lines, **measured} for measured in verbs(name, folder)]
    # After the measured processes, because it loads torch.
    result = {"machine": machine(), "rows": rows}
    written(result, options.out)
    headings = ("set", "lines", "command", "peak, GB", "processor, s")
    cells = [
        (row["set"], f"{row['lines']:,}", row["command"], f"{row['peak_bytes'] / 1e9:.2f}", f"{row['cpu_seconds']:.0f}")
        for row in rows
    ]
    print(table(headings, cells, left=1))


def verbs(name: str, folder: Path) -> list[dict[str, Any]]:
    """Peak and processor seconds of `data describe`, and of `data check` if the files are a table."""
    rows, items = (folder / file for file in _FILES[name])
    source = {"use": name, "path": str(folder)}
    if name == "amazon-2023":
        source = {"use": name, "reviews": str(rows), "metadata": str(items)}
    fields = ", ".join(f"{key} = {json.dumps(value)}" for key, value in source.items())
    recipe = folder / "recipe.toml"
    prepare = f'[prepare]\nsource = {{ {fields} }}\nfilters = [{{ use = "k-core" }}]\n'
    recipe.write_text(f'title = "{name}"\nsteps = ["prepare"]\n\n{prepare}')
    commands = {
        "data describe": ["describe", str(recipe), "--store", str(folder / "store"), "--out", str(folder / "card")]
    }
    if name == "movielens-32m":
        columns = ["user=userId", "item=movieId", "item_key=movieId"]
        commands["data check"] = ["check", str(rows), str(items), *(f"--column={column}" for column in columns)]
    measured = []
    for label, arguments in commands.items():
        with (folder / "output.txt").open("w") as output:
            command = [sys.executable, "-m", "reaemb_bench", "data", *arguments]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit((folder / "output.txt").read_text()[-2000:])
        seconds = usage.ru_utime + usage.ru_stime
        measured.append({"command": label, "peak_bytes": usage.ru_maxrss * 1024, "cpu_seconds": seconds})
        print(name, measured[-1], file=sys.stderr)
    return measured


if __name__ == "__main__":
    main()
