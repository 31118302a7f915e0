"""Two sides in turn: the threads they get, our side as a child process, medians over the pairs of a turn.

Imported before numpy, whose matrix products take their number of threads from the environment when they are loaded.
"""

import json
import os
import pathlib
import statistics
import subprocess

THREADS = 2
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["RAYON_NUM_THREADS"] = str(THREADS)
# PyTorch's; with more than there are processors it takes several times as long.
os.environ["OMP_NUM_THREADS"] = str(THREADS)

ROOT = pathlib.Path(__file__).resolve().parents[2]


def built(*arguments):
    """Builds with `cargo build --release ARGUMENTS`; the last one names what is built. Returns where it is."""
    subprocess.run(["cargo", "build", "--release", *arguments], cwd=ROOT, check=True)
    release = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    return release / "examples" / arguments[-1] if "--example" in arguments else release / arguments[-1]


class Child:
    """A program of benches/examples: a command a line of its standard input, an answer a line of its standard output."""

    def __init__(self, *command):
        self.command = [str(word) for word in command]
        self.child = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.ask("ready") == "ready"

    def ask(self, *words):
        self.child.stdin.write(" ".join(map(str, words)) + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline().strip()
        if not answer:
            raise SystemExit(f"no answer to {words} from {' '.join(self.command)}")
        return answer

    def times(self, *words):
        """Asks for what is answered with seconds of the clock and of the processor, and perhaps more."""
        return tuple(float(word) for word in self.ask(*words).split()[:2])

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def epochs_of(model):
    """Returns what history.jsonl of a trained model says of each epoch: seconds, loss and more."""
    newest = model / "versions" / (model / "CURRENT").read_text().strip()
    return list(map(json.loads, (newest / "history.jsonl").read_text().splitlines()))


def medians(peer, theirs, ours):
    """What both sides took, as (seconds, processor seconds) a turn, the first of which is warm-up.

    Ratios are medians over the turns of theirs to ours. Processor seconds of both threads say the same on a busy
    machine, where the clock says more about its other work.
    """
    turns = list(zip(theirs, ours))
    turns = turns[1:] or turns
    row = {}
    for at, kind in enumerate(["", "processor_"]):
        row[f"{peer}_{kind}seconds"] = round(statistics.median(their[at] for their, _ in turns), 4)
        row[f"recmill_{kind}seconds"] = round(statistics.median(our[at] for _, our in turns), 4)
        row[f"{kind}ratio"] = round(statistics.median(their[at] / our[at] for their, our in turns), 3)
    return row
