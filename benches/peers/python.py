"""The Python package beside implicit, from Python: fit, recommend for many and for one, BPR, import time. One matrix, one run.

    pip install ./python implicit==0.7.3 skrecsys==0.9.0 tqdm
    python benches/peers/python.py                       # all of it
    python benches/peers/python.py --only one,import     # some: als, many, one, bpr, skrecsys, import

The matrix is the one of ml20m.py, kept under --work. Both sides take turns; a ratio is the median over the pairs of a turn. Both have 2
threads, and BLAS, which implicit multiplies with, has as many. `one` is the median of 1,000 calls for one user with the row sliced
beforehand; `bpr` holds out one item a user and prints both ndcg@10. `skrecsys` is BPR beside that library (CPython 3.11 and later), its ids
left out: what is timed is what its `fit` calls once they are numbers.
"""

import argparse
import datetime
import pathlib
import statistics
import subprocess
import sys
import time

from turns import ROOT, THREADS

import numpy  # noqa: E402
from implicit.als import AlternatingLeastSquares as ImplicitAls  # noqa: E402
from implicit.bpr import BayesianPersonalizedRanking as ImplicitBpr  # noqa: E402

import ml20m  # noqa: E402
import record  # noqa: E402
import recmill  # noqa: E402
from recmill import evaluation  # noqa: E402

CALLS = 1000


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(ours, theirs, turns):
    """Returns medians of both, and of the ratios, after a warm-up of each."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(turns)]
    mine, other = zip(*pairs)
    return statistics.median(mine), statistics.median(other), statistics.median(b / a for a, b in pairs)


def als(matrix, turns):
    params = {"factors": 64, "iterations": 3, "random_state": 0, "num_threads": THREADS}
    ours = recmill.AlternatingLeastSquares(device="cpu", **params)
    theirs = ImplicitAls(use_gpu=False, **params)
    fits = [
        lambda: seconds(lambda: ours.fit(matrix, False)),
        lambda: seconds(lambda: theirs.fit(matrix, show_progress=False)),
    ]
    yield "als fit, 64 factors, 3 iterations, s", *in_turn(*fits, turns)


def fitted(matrix):
    theirs = ImplicitAls(factors=64, iterations=2, random_state=0, num_threads=THREADS, use_gpu=False)
    theirs.fit(matrix, show_progress=False)
    ours = recmill.from_implicit(theirs)
    ours.set_params(num_threads=THREADS)
    return ours, theirs


def many(matrix, turns):
    ours, theirs = fitted(matrix)
    users = numpy.random.default_rng(0).choice(matrix.shape[0], 20_000, replace=False)
    rows = matrix[users]
    same = ours.recommend(users[:500], rows[:500])[0] == theirs.recommend(users[:500], rows[:500])[0]
    print(f"same answers: {same.mean():.4f}")
    asks = [lambda side=side: seconds(lambda: side.recommend(users, rows, N=10)) for side in (ours, theirs)]
    yield "recommend 10 of 26,744 for 20,000 users, s", *in_turn(*asks, turns)


def one(matrix, turns):
    ours, theirs = fitted(matrix)
    user = 77
    row = matrix[[user]]

    def median(side):
        return statistics.median(seconds(lambda: side.recommend(user, row, N=10)) for _ in range(CALLS)) * 1e6

    yield "recommend 10 of 26,744 for one user, us", *in_turn(lambda: median(ours), lambda: median(theirs), turns)


def ndcg(model, train, test):
    """Returns the ndcg@10 of the one item held out, of every so many users."""
    some = numpy.zeros(train.shape[0], bool)
    some[:: max(1, train.shape[0] // 20_000)] = True
    return evaluation.ndcg_at_k(model, train, test.multiply(some[:, None]).tocsr(), K=10, show_progress=False)


def bpr(matrix, turns):
    train, test = evaluation.leave_k_out_split(matrix, 1, random_state=0)
    params = {"factors": 64, "iterations": 10, "learning_rate": 0.05, "random_state": 0, "num_threads": THREADS}
    ours = recmill.BayesianPersonalizedRanking(device="cpu", **params)
    theirs = ImplicitBpr(use_gpu=False, **params)
    fits = [
        lambda: seconds(lambda: ours.fit(train, False)),
        lambda: seconds(lambda: theirs.fit(train, show_progress=False)),
    ]
    yield "bpr fit, 64 factors, 10 epochs, s", *in_turn(*fits, max(1, turns - 2))
    for name, model in (("recmill", ours), ("implicit", theirs)):
        print(f"{name}: ndcg@10 {ndcg(model, train, test):.4f} of one held-out item")


def skrecsys(matrix, turns):
    from scipy.sparse import csr_array
    from skrecsys.recommendation import BayesianPersonalizedRanking as SkrecsysBpr

    train, test = evaluation.leave_k_out_split(matrix, 1, random_state=0)
    ours = recmill.BayesianPersonalizedRanking(
        factors=64, iterations=10, learning_rate=0.05, random_state=0, num_threads=THREADS, device="cpu"
    )
    theirs = SkrecsysBpr(n_factors=64, max_iter=10, learning_rate=0.05, random_state=0, n_jobs=THREADS)
    array = csr_array(train)
    fits = [lambda: seconds(lambda: ours.fit(train, False)), lambda: seconds(lambda: theirs._fit(array))]
    yield "bpr fit beside skrecsys, 64 factors, 10 epochs, s", *in_turn(*fits, max(1, turns - 2))
    taken = recmill.BayesianPersonalizedRanking(factors=64)
    taken._replace(theirs.user_factors_, theirs.item_factors_, theirs.item_bias_)
    for name, model in (("recmill", ours), ("skrecsys", taken)):
        print(f"{name}: ndcg@10 {ndcg(model, train, test):.4f} of one held-out item")


def importing(_, turns):
    def start(module):
        code = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
        return lambda: float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)

    bare = statistics.median(start("numpy")() for _ in range(9))
    ours, theirs, ratio = in_turn(start("recmill"), start("implicit.als"), 9)
    print(f"numpy alone: {bare * 1e3:.0f} ms")
    yield "import in a new interpreter, ms", ours * 1e3, theirs * 1e3, ratio


PARTS = {"als": als, "many": many, "one": one, "bpr": bpr, "skrecsys": skrecsys, "import": importing}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "target/peers")
    parser.add_argument("--record", type=pathlib.Path, help="a CSV file that the rows are added to")
    arguments = parser.parse_args()
    matrix = ml20m.load(arguments.work)
    rows = []
    for part in arguments.only.split(","):
        for what, ours, theirs, ratio in PARTS[part](matrix, arguments.turns):
            other = "skrecsys" if part == "skrecsys" else "implicit"
            print(f"{what}: recmill {ours:.4g}, {other} {theirs:.4g}, ratio {ratio:.2f}", flush=True)
            date = datetime.date.today().isoformat()
            rows.append(
                {
                    "date": date,
                    "what": what,
                    "recmill": f"{ours:.5g}",
                    "peer": other,
                    "theirs": f"{theirs:.5g}",
                    "ratio": f"{ratio:.3f}",
                }
            )
    if arguments.record:
        record.append(arguments.record, rows)


if __name__ == "__main__":
    main()
