"""Logistic matrix factorization beside implicit's, each with its defaults: hr@10 and ndcg@10 among the listed candidates of ml1m-ncf.

pip install ./python implicit==0.7.3 tqdm
RECMILL_DATA=/path/to/data python benches/peers/lmf.py --seeds 3
"""

import argparse
import csv
import datetime
import os
import pathlib
import statistics
import time

from turns import THREADS

import numpy  # noqa: E402
from implicit.lmf import LogisticMatrixFactorization as Implicit  # noqa: E402
from scipy.sparse import csr_matrix  # noqa: E402

import record  # noqa: E402
from recmill.lmf import LogisticMatrixFactorization as Recmill  # noqa: E402


def read(name):
    with (pathlib.Path(os.environ["RECMILL_DATA"]) / "ml1m-ncf" / name).open(newline="") as file:
        return [(int(row["user"]), int(row["item"])) for row in csv.DictReader(file)]


def measure(users, items, test, candidates):
    """Returns hr@10 and ndcg@10: each user's test item by its place among their candidates."""
    hits, gains = [], []
    for user, item in test.items():
        others = numpy.array(sorted(set(candidates[user]) - {item}))
        place = int((items[others] @ users[user] > items[item] @ users[user]).sum())
        hits.append(place < 10)
        gains.append(1 / numpy.log2(place + 2) if place < 10 else 0.0)
    return float(numpy.mean(hits)), float(numpy.mean(gains))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--record", type=pathlib.Path, help="a CSV file that the rows are added to")
    arguments = parser.parse_args()
    train, test, candidates = read("train.csv"), dict(read("test.csv")), {}
    for user, item in read("candidates.csv"):
        candidates.setdefault(user, []).append(item)
    rows, columns = numpy.array(train).T
    n_items = 1 + max(int(columns.max()), max(test.values()), *(max(of) for of in candidates.values()))
    matrix = csr_matrix((numpy.ones(len(rows), numpy.float32), (rows, columns)), shape=(int(rows.max()) + 1, n_items))
    for name, kind in (("recmill", Recmill), ("implicit", Implicit)):
        found = []
        for seed in range(arguments.seeds):
            began = time.perf_counter()
            model = kind(random_state=seed, num_threads=THREADS)
            model.fit(matrix, show_progress=False)
            seconds = time.perf_counter() - began
            found.append((*measure(model.user_factors, model.item_factors, test, candidates), seconds))
        hr, ndcg, seconds = map(statistics.fmean, zip(*found))
        print(f"{name}: hr@10 {hr:.4f}, ndcg@10 {ndcg:.4f}, {seconds:.1f} s a fit", flush=True)
        if arguments.record:
            line = {"date": datetime.date.today().isoformat(), "what": "lmf, defaults, ml1m-ncf", "of": name}
            line |= {
                "seeds": arguments.seeds,
                "hr@10": f"{hr:.4f}",
                "ndcg@10": f"{ndcg:.4f}",
                "seconds": f"{seconds:.1f}",
            }
            record.append(arguments.record, [line])


if __name__ == "__main__":
    main()
