"""Table of the exports of a ladder's last student: `python -m benchmarks.exports LADDER [KEY=VALUE]...`.

Runs the ladder with these settings (short ones do: formats differ in the same way whatever the student has learned), exports its last
student in every format that its workload has, and prints what `ladder export` has measured, as Markdown. `--home` keeps the results, so
that a second call measures nothing anew; `--run` takes a finished run of that home instead of running; `--formats` names some formats
alone, and `--stage` another student.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conf.loading.load import load
from tasks.records.export import ExportRecord
from tasks.report.export_table import HEADERS, rows

EVERYWHERE = ("hf", "onnx", "onnx-int8")
LANGUAGE = ("gguf-f32", "gguf-f16", "gguf-q8_0")


def ladder(*words: str, home: Path, code: Sequence[int] = (0,)) -> str:
    """Run a command in a home; returns its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.app", *words],
        env={**os.environ, "LADDER_HOME": str(home), "MLFLOW_TRACKING_URI": "none"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in code:
        raise SystemExit(f"ladder {' '.join(words)}: exit code {done.returncode}")
    return done.stdout


def table(exports: Sequence[ExportRecord]) -> str:
    """The exports of one student as a Markdown table."""
    lines = [HEADERS, ["---", *["---:"] * (len(HEADERS) - 2), "---"], *rows(exports, exports[0].stage)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run, export and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladder")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--run")
    parser.add_argument("--stage")
    parser.add_argument("--formats", nargs="+")
    given = parser.parse_intermixed_args()
    workload = load(given.ladder, given.overrides).ladder.workload
    formats = given.formats or [*EVERYWHERE, *(LANGUAGE if workload == "causal-lm" else ())]
    with tempfile.TemporaryDirectory() as temporary:
        home = given.home or Path(temporary)
        if given.run is None:
            ladder("run", given.ladder, *given.overrides, home=home)
        words = [word for name in formats for word in ("--format", name)]
        stage = ["--stage", given.stage] if given.stage else []
        document: dict[str, Any] = json.loads(
            ladder("export", *([given.run] if given.run else []), *words, *stage, "--json", home=home, code=(0, 3))
        )
    exports = [ExportRecord.model_validate(each) for each in document["exports"]]
    shown = exports[0]
    print(f"{given.ladder}, student {shown.stage}: {shown.machine}\n\n{table(exports)}")
    for each in exports:
        compared = f"{each.difference.rows:,} rows" + (f", {each.difference.texts} texts" if each.difference.texts else "")
        print(f"- {each.name}: {compared}" + (f"; refused: {each.refused}" if each.refused else ""))


if __name__ == "__main__":
    main()
