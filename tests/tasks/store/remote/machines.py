"""The program of a machine that needs a result."""

# Prints what happens. Where it computes, and is told to wait, it does so until there is a file `go` beside its home.
MACHINE = """
import sys, time
from pathlib import Path
from conf.home import Home
from tasks.store.cached import Entry, find_or_compute
from tasks.store.store import Store
home, run, how = sys.argv[1:]
def show(text):
    print(text, flush=True)
def compute():
    show("computing")
    while how == "wait" and not Path(f"{home}.go").exists():
        time.sleep(0.05)
    return lambda folder: (folder / "model").write_text(run)
store, entry = Store(Home(Path(home)), show), Entry("stage", "100k", {"kind": "stage", "seed": 1})
stored = find_or_compute(store, entry, {"run": run, "ladder": "l"}, compute)
show(f"{'reused' if stored.reused else 'made'} {(stored.folder / 'model').read_text()}")
"""
