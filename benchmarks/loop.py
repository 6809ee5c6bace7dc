"""The loop from a served student to drift, re-distillation and promotion.

A student of the ladder of `benchmarks.dialects` serves requests over HTTP; each window of requests and answers is a file, which the
monitor reads. After twenty calm windows the requests come in a dialect that the student does not know. `make loop` runs it here; the
slow test runs it with a server that schedules.

    python -m benchmarks.loop FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import dialects

CALM, DRIFTED, ROWS = 20, 4, 250  # windows, windows, requests of each
SOUTH, LABELLED = 0.5, 0.6  # of the drifted windows' requests in the other dialect, and of all with a label
PATIENCE = 900.0  # seconds for one command, on a machine that does much else


@dataclass
class Loop:
    """A folder with the ladder, its home and its windows.

    Attributes:
        folder: Everything lies in it.
        began: When the demonstration began.
        port: Of the model's server.
    """

    folder: Path
    began: float = field(default_factory=time.monotonic)
    port: int = 0

    @property
    def home(self) -> Path:
        """The home."""
        return self.folder / "home"

    @property
    def windows(self) -> Path:
        """Folder of the window files."""
        return self.folder / "windows"

    def say(self, text: str) -> None:
        """Print a line with the time since the beginning."""
        seconds = int(time.monotonic() - self.began)
        print(f"{seconds // 60:3d}:{seconds % 60:02d}  {text}", flush=True)

    def environment(self) -> dict[str, str]:
        """Of every command."""
        return {**os.environ, "LADDER_HOME": str(self.home), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}

    def ladder(self, *arguments: object, codes: Sequence[int] = (0,)) -> str:
        """Run a command; returns its standard output, or its error where it was refused as expected."""
        command = [sys.executable, "-m", "flows.cli.app", *map(str, arguments)]
        log = self.folder / "commands.log"
        with log.open("a", encoding="utf-8") as errors:
            errors.write(f"$ ladder {' '.join(map(str, arguments))}\n")
            errors.flush()
            done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
            errors.write(done.stdout + done.stderr)
        if done.returncode not in codes:
            sys.exit(f"ladder {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout if done.returncode == 0 else done.stderr

    @contextmanager
    def served(self, model: str) -> Iterator[None]:
        """Serve a model over HTTP while the block runs."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "flows.cli.app", "serve-model", model, "--port", str(self.port)]
        with (self.folder / "serve-model.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log, start_new_session=True)
        try:
            self.wait_for(lambda: self.ask("/v1/models") is not None, "serve-model")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def wait_for(self, condition: Any, what: str, seconds: float = PATIENCE) -> Any:
        """Poll until a condition gives something true."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := condition():
                return found
            time.sleep(0.5)
        sys.exit(f"waited {seconds:.0f} s for {what}")

    def ask(self, path: str, document: Any = None) -> Any:
        """The server's JSON; None where it does not answer yet."""
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return json.loads(answer.read())
        except OSError:
            return None

    def serve_window(self, number: int, south: float) -> tuple[float, str]:
        """Send the requests of a window; returns the share of right answers, and the version that answered."""
        rows = list(dialects.requests(number, ROWS, south, LABELLED))
        answers, version = [], ""
        for first in range(0, ROWS, 50):
            found = self.ask("/predict", {"inputs": [row["input"] for row in rows[first : first + 50]]})
            answers += found["predictions"]
            version = found["model"]
        truth = list(dialects.requests(number, ROWS, south))
        right = sum(answer["label"] == row["label"] for answer, row in zip(answers, truth, strict=True))
        for row, answer in zip(rows, answers, strict=True):
            row |= {"prediction": answer["label"], "confidence": answer.get("probability"), "model": version}
        self.windows.mkdir(exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.windows / f"{rows[0]['time'][:13].replace('-', '')}.jsonl").write_text(text, encoding="utf-8")
        return right / ROWS, version

    def decisions(self) -> list[dict[str, Any]]:
        """Decisions about re-distillation, the newest first."""
        return json.loads(self.ladder("redistill", "dialects", "--history", "--json"))


def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description="The loop from drift to promotion.")
    parser.add_argument("folder", type=Path, help="a new folder")
    loop = Loop(parser.parse_args().folder.absolute())
    if loop.folder.exists():
        sys.exit(f"{loop.folder} exists: give the name of a new folder")
    run(loop)


def run(loop: Loop) -> None:
    """The whole loop, with the monitor as a command."""
    loop.say("a teacher that knows two dialects, data in one of them, a ladder of two students")
    ladder = dialects.write(loop.folder)
    loop.ladder("run", ladder, "--name", "first")
    loop.say("the ladder is distilled; the small student becomes champion:")
    loop.say(f"  {loop.ladder('promote', 'first').strip().splitlines()[-1]}")
    with loop.served("dialects@champion"):
        right = [loop.serve_window(number, 0.0)[0] for number in range(CALM)]
        loop.say(f"{CALM} windows of {ROWS} requests are served: {sum(right) / CALM:.1%} right")
        reports = json.loads(loop.ladder("monitor", "dialects", "--windows", loop.windows, "--json"))
        loop.say(f"the monitor has looked at {len(reports)} windows; drops that it has proven: {sum(each['trigger'] for each in reports)}")
        loop.say(f"decisions to go back to work: {len(loop.decisions())}")
        before = [loop.serve_window(number, SOUTH) for number in range(CALM, CALM + DRIFTED)]
        loop.say(f"half of the requests come in the other dialect: {sum(share for share, _ in before) / DRIFTED:.1%} right")
        loop.say("the monitor looks; where it proves the drop, the ladder runs again with these windows")
        reports = json.loads(loop.ladder("monitor", "dialects", "--windows", loop.windows, "--json"))
        for report in reports:
            loop.say(f"  window {report['window']}: {report['diagnosis']}. {report['why']}")
        [decision] = loop.decisions()
        counts = decision["counts"]
        loop.say(f"  {counts['transfer']} rows train, {counts['held_out']} judge; the teacher was asked about what was new alone")
        loop.say(f"  {decision['outcome']}: {decision['reason']}")
        loop.wait_for(lambda: loop.serve_window(100, SOUTH)[1] == "dialects/2", "the new champion to be served", 120)
        after = [loop.serve_window(number, SOUTH) for number in range(CALM + DRIFTED, CALM + 2 * DRIFTED)]
        (loop.windows / f"{next(iter(dialects.requests(100, 1, 0)))['time'][:13].replace('-', '')}.jsonl").unlink()
        loop.say(f"the server has switched to {after[0][1]} by itself: {sum(share for share, _ in after) / DRIFTED:.1%} right")
        loop.ladder("monitor", "dialects", "--windows", loop.windows)
    loop.ladder("run", ladder, "stages.small.training.steps=2", "--name", "careless")
    refused = loop.ladder("promote", "careless", "--data", decision["held_out"], codes=(3,))
    loop.say("a careless challenger, trained for two steps, is refused:")
    loop.say(f"  {refused.strip().splitlines()[-1]}")
    loop.say(f"and back: {loop.ladder('rollback', 'dialects', '--reason', 'shown').strip().splitlines()[-1]}")
    loop.say(f"history: {loop.home / 'monitoring' / 'dialects' / 'monitoring.html'}")


if __name__ == "__main__":
    main()
