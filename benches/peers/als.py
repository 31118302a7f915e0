"""ALS beside implicit: seconds an iteration, equal loss, peak memory. Both sides, one matrix, one run.

    python benches/peers/als.py                   # 64, 128, 256 factors by conjugate gradients; 64, 128 by Cholesky
    python benches/peers/als.py --factors 64 --solvers cg --iterations 5

Needs `pip install implicit==0.7.3`. The matrix is the one of ml20m.py, kept under --work. Both sides start from the same
factors and take their iterations in turn, so that a busy machine is busy for both; the first iteration of each is left out
of the median. The loss is implicit's own `calculate_loss` on both factor sets after as many iterations.
"""

import argparse
import datetime
import json
import pathlib
import re
import subprocess
import sys
import time

from turns import THREADS, Child, built, medians

import implicit  # noqa: E402
import implicit.cpu._als as peer  # noqa: E402
import numpy  # noqa: E402
import scipy.sparse  # noqa: E402

import ml20m  # noqa: E402
import record  # noqa: E402
from ml20m import N_ITEMS, N_USERS  # noqa: E402

REGULARIZATION, ALPHA = 0.01, 1.0


def starting_factors(work, factors):
    random = numpy.random.default_rng(factors)
    users = ((random.random((N_USERS, factors), dtype=numpy.float32) - 0.5) * 0.1).astype(numpy.float32)
    items = ((random.random((N_ITEMS, factors), dtype=numpy.float32) - 0.5) * 0.1).astype(numpy.float32)
    users.tofile(work / "start-users.bin")
    items.tofile(work / "start-items.bin")
    return users, items


class Ours(Child):
    """benches/examples/als_speed.rs as a child: one iteration a line."""

    def __init__(self, binary, work, solver, factors):
        starting = [work / "start-users.bin", work / "start-items.bin"]
        super().__init__(binary, ml20m.binary(work), *starting, solver, factors, ALPHA, REGULARIZATION)
        self.work = work

    def iterate(self):
        return self.times("iterate")

    def factors(self, factors):
        assert self.ask("save", self.work / "ours-users.bin", self.work / "ours-items.bin") == "saved"
        read = lambda name: numpy.fromfile(self.work / name, dtype=numpy.float32).reshape(-1, factors)
        return read("ours-users.bin"), read("ours-items.bin")


class Implicit:
    """The two calls that implicit's `fit` makes and times in each iteration."""

    def __init__(self, matrix, users, items, solver):
        # fit() multiplies by alpha and takes the transpose once, before its clock starts.
        self.by_user = (matrix * ALPHA).tocsr().astype(numpy.float32)
        # implicit's confidence is the value itself: 1 + alpha * value, as ours.
        self.by_user.data += 1.0
        self.by_item = self.by_user.T.tocsr()
        self.users, self.items = users.copy(), items.copy()
        self.solve = peer.least_squares_cg if solver == "cg" else peer.least_squares
        self.options = {"num_threads": THREADS} | ({"cg_steps": 3} if solver == "cg" else {})

    def iterate(self):
        start, used = time.perf_counter(), time.process_time()
        self.solve(self.by_user, self.users, self.items, REGULARIZATION, **self.options)
        self.solve(self.by_item, self.items, self.users, REGULARIZATION, **self.options)
        return time.perf_counter() - start, time.process_time() - used

    def loss(self, users, items):
        return peer.calculate_loss(self.by_user, users, items, REGULARIZATION, num_threads=THREADS)


def compare(binary, work, matrix, solver, factors, iterations):
    users, items = starting_factors(work, factors)
    theirs = Implicit(matrix, users, items, solver)
    ours = Ours(binary, work, solver, factors)
    turns = [(theirs.iterate(), ours.iterate()) for _ in range(iterations)]
    our_loss = theirs.loss(*ours.factors(factors))
    their_loss = theirs.loss(theirs.users, theirs.items)
    ours.close()
    shape = {"solver": solver, "factors": factors, "iterations": iterations}
    losses = {"implicit_loss": their_loss, "recmill_loss": our_loss}
    return shape | medians("implicit", *zip(*turns)) | losses


def peak_memory(binary, work, factors):
    """Each side in a process of its own: from the files to two iterations."""
    users, items = starting_factors(work, factors)
    del users, items
    this = [sys.executable, __file__, "--work", str(work), "--memory-of-implicit", str(factors)]
    theirs = int(subprocess.run(this, check=True, capture_output=True, text=True).stdout.split()[-1])
    ours = Ours(binary, work, "cg", factors)
    ours.iterate()
    ours.iterate()
    peak = int(ours.ask("memory"))
    ours.close()
    return {"factors": factors, "implicit_peak_kb": theirs, "recmill_peak_kb": peak}


def memory_of_implicit(work, factors):
    matrix = scipy.sparse.load_npz(ml20m.npz(work))
    model = implicit.cpu.als.AlternatingLeastSquares(
        factors=factors, regularization=REGULARIZATION, alpha=ALPHA, iterations=2, num_threads=THREADS
    )
    model.fit(matrix, show_progress=False)
    # Not ru_maxrss: a child begins with that of the process that started it, which holds the matrix and factors here.
    status = pathlib.Path("/proc/self/status").read_text()
    print(re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[1])


def recorded(row):
    if "solver" not in row:
        theirs, ours = row["implicit_peak_kb"], row["recmill_peak_kb"]
        measured = ("peak memory", "cg", row["factors"], theirs, ours, "KB", f"{theirs / ours:.3f}", "", "", "")
    else:
        losses = (f"{row[side]:.8f}" for side in ["implicit_loss", "recmill_loss"])
        seconds = (row["implicit_seconds"], row["recmill_seconds"], "s", row["ratio"], row["processor_ratio"])
        measured = ("iteration", row["solver"], row["factors"], *seconds, *losses)
    names = "what,solver,factors,implicit,recmill,unit,ratio,processor_ratio,implicit_loss,recmill_loss"
    return dict(zip(names.split(","), measured))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--solvers", default="cg,cholesky")
    parser.add_argument("--factors", default="")
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/recmill-peers"))
    parser.add_argument("--binary", help="als_speed, when it is built already")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--record", type=pathlib.Path, help="append the rows to this CSV file")
    parser.add_argument("--memory-of-implicit", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of_implicit:
        return memory_of_implicit(args.work, args.memory_of_implicit)

    binary = args.binary or built("-p", "recmill-benches", "--example", "als_speed")
    matrix = ml20m.load(args.work)
    version = f"implicit {implicit.__version__}"
    print(f"# {datetime.date.today()} {record.processor()}, {THREADS} threads, {version}", file=sys.stderr)
    print(f"# {matrix.shape[0]} x {matrix.shape[1]}, {matrix.nnz} non-zeros", file=sys.stderr)
    rows = []
    for solver in args.solvers.split(","):
        default = "64,128,256" if solver == "cg" else "64,128"
        for factors in (args.factors or default).split(","):
            rows.append(compare(binary, args.work, matrix, solver, int(factors), args.iterations))
            print(json.dumps(rows[-1]), flush=True)
    if not args.no_memory:
        rows.append(peak_memory(binary, args.work, 64))
        print(json.dumps(rows[-1]), flush=True)
    if args.record:
        record.append(args.record, [recorded(row) for row in rows])


if __name__ == "__main__":
    main()
