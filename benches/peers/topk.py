"""The ten best of all items without those a user had, beside implicit's `recommend`: users a second. One run, both sides.

    python benches/peers/topk.py                  # 64 and 128 factors
    RECMILL_DATA=DIR python benches/peers/topk.py --matrices ml20m-shape,gowalla,yelp2018 --factors 64,128,256

Needs `pip install implicit==0.7.3`. The factors are what implicit's ALS learns from the matrix in a few iterations. Matrix
and factors are kept under --work. The matrix of ml20m.py has the size and both tails of MovieLens-20M but no tastes: its
factors are little more than popularity, so that norms alone rule out nearly all items. `plain` scores every item whatever
the factors are; `prepared` is flattered, and what is claimed for it should come from real interactions: gowalla, 29,858 x
40,981, or yelp2018, 31,668 x 38,048 (train.csv in the folder of that name under RECMILL_DATA).

Compared, for the same batch of users in turn, so that a busy machine is busy for all; the first turn is left out:
  implicit   model.recommend(userids, user_items[userids], N=10, filter_already_liked_items=True), num_threads=2 and
             OPENBLAS_NUM_THREADS=1; the rows user_items[userids] are cut out before its clock starts
  plain      score_topk with TopkPrepared::plain: every score in f32, nothing derived from the items but their norms
  prepared   score_topk with TopkPrepared::new: items by falling norm, and where the processor has AVX-512 VNNI a first
             pass over int8 codes whose survivors are scored again in f32; derived once, before any clock starts

Every turn's answers are checked: plain and prepared agree in ids and in the bits of the scores; ids agree with implicit's
but where the scores of both ids, in f64, are within 1e-5 of each other.
"""

import argparse
import datetime
import json
import os
import pathlib
import sys
import time

from turns import THREADS, Child, built, medians

import implicit  # noqa: E402
import numpy  # noqa: E402
import scipy.sparse  # noqa: E402

import ml20m  # noqa: E402
import record  # noqa: E402

K, TOLERANCE = 10, 1e-5
MODES = ["plain", "prepared"]
# What implicit's ALS learns each matrix with; for the real ones what served it well on gowalla at 64 factors.
TRAINING = {
    "ml20m-shape": {"regularization": 0.01, "alpha": 1.0},
    "gowalla": {"regularization": 10.0, "alpha": 40.0},
    "yelp2018": {"regularization": 10.0, "alpha": 40.0},
}


def load(work, name):
    """Returns the matrix, and the file that benches/examples read it from."""
    if name == "ml20m-shape":
        return ml20m.load(work), ml20m.binary(work)
    if "RECMILL_DATA" not in os.environ:
        raise SystemExit(f"{name} needs RECMILL_DATA, the folder that {name}/train.csv is in")
    path = pathlib.Path(os.environ["RECMILL_DATA"]) / name / "train.csv"
    users, items = numpy.loadtxt(path, dtype=numpy.int64, delimiter=",", skiprows=1, usecols=(0, 1), unpack=True)
    matrix = scipy.sparse.coo_matrix((numpy.ones(len(users), dtype=numpy.float32), (users, items))).tocsr()
    work.mkdir(parents=True, exist_ok=True)
    ml20m.write(work / f"{name}.bin", matrix)
    return matrix, work / f"{name}.bin"


def trained_factors(work, name, matrix, factors, iterations):
    """Returns the files with user and item factors, learned on the first call."""
    paths = [work / f"{name}-als-{factors}-{iterations}-{side}.bin" for side in ["users", "items"]]
    if not all(path.exists() for path in paths):
        model = implicit.cpu.als.AlternatingLeastSquares(
            factors=factors, iterations=iterations, num_threads=THREADS, random_state=0, **TRAINING[name]
        )
        model.fit(matrix, show_progress=False)
        for path, table in zip(paths, [model.user_factors, model.item_factors]):
            table.astype("<f4").tofile(path)
    return paths


class Ours(Child):
    """benches/examples/topk_speed.rs as a child: one batch of users a line."""

    def __init__(self, binary, work, matrix_path, paths, factors):
        super().__init__(binary, matrix_path, *paths, factors, K)
        self.files = [work / "ours-ids.bin", work / "ours-scores.bin"]
        # The first pass that `TopkPrepared::new` prepares for; where it is missing, norms alone save work.
        vnni = "avx512_vnni" in pathlib.Path("/proc/cpuinfo").read_text()
        self.simd = self.ask("simd")
        self.first_pass = "int8" if vnni and self.simd == "avx512" else "none"

    def recommend(self, mode, first, count):
        return self.times("answer", mode, first, count)

    def answers(self):
        assert self.ask("save", *self.files) == "saved"
        kinds = zip(self.files, ["<i4", "<f4"])
        return [numpy.fromfile(path, dtype=kind).reshape(-1, K) for path, kind in kinds]


class Implicit:
    def __init__(self, matrix, users, items):
        self.model = implicit.cpu.als.AlternatingLeastSquares(factors=items.shape[1], num_threads=THREADS)
        self.model.user_factors, self.model.item_factors = users, items
        self.matrix = matrix

    def recommend(self, first, count):
        ids = numpy.arange(first, first + count)
        rows = self.matrix[ids]
        start, used = time.perf_counter(), time.process_time()
        answers = self.model.recommend(ids, rows, N=K, filter_already_liked_items=True)
        return (time.perf_counter() - start, time.process_time() - used), answers


def relative_difference(a, b):
    return numpy.abs(a - b) / numpy.maximum(numpy.abs(a), numpy.abs(b))


def check(users, items, first, theirs, ours):
    """Returns how many of the lists are identical; every other one must differ by near ties only."""
    plain, prepared = [(ids, scores.view("<u4")) for ids, scores in ours]
    for what, one, other in zip(["ids", "score bits"], plain, prepared):
        if not numpy.array_equal(one, other):
            raise SystemExit(f"plain and prepared differ in {what}, from user {first} on")
    (their_ids, _), (our_ids, _) = theirs, ours[0]
    user, rank = numpy.nonzero(their_ids != our_ids)
    vectors = users[first + user].astype(numpy.float64)
    score = lambda ids: numpy.einsum("nd,nd->n", vectors, items[ids[user, rank]].astype(numpy.float64))
    apart = relative_difference(score(their_ids), score(our_ids))
    if (apart > TOLERANCE).any():
        at = int(apart.argmax())
        where = f"user {first + user[at]}, rank {rank[at]}"
        raise SystemExit(f"{where}: {their_ids[user[at]]} of implicit, {our_ids[user[at]]} of ours, apart by {apart[at]}")
    return len(our_ids) - len(numpy.unique(user))


def compare(binary, name, matrix, matrix_path, factors, args):
    paths = trained_factors(args.work, name, matrix, factors, args.iterations)
    users, items = [numpy.fromfile(path, dtype="<f4").reshape(-1, factors) for path in paths]
    theirs, ours = Implicit(matrix, users, items), Ours(binary, args.work, matrix_path, paths, factors)
    n_users = matrix.shape[0]
    batch = min(args.batch, n_users)
    turns = {side: [] for side in ["implicit", *MODES]}
    identical = answered = 0
    for turn in range(args.turns):
        first = turn * batch % (n_users - batch + 1)
        took, their_answers = theirs.recommend(first, batch)
        turns["implicit"].append(took)
        our_answers = []
        for mode in MODES:
            turns[mode].append(ours.recommend(mode, first, batch))
            our_answers.append(ours.answers())
        identical += check(users, items, first, their_answers, our_answers)
        answered += batch
    shape = {"matrix": name, "factors": factors, "batch": batch, "turns": args.turns}
    found = {"simd": ours.simd, "identical_lists": round(identical / answered, 5)}
    ours.close()
    for mode in MODES:
        row = medians("implicit", turns["implicit"], turns[mode])
        rates = {f"{side}_users_per_second": round(batch / row[f"{side}_seconds"]) for side in ["implicit", "recmill"]}
        first_pass = ours.first_pass if mode == "prepared" else "none"
        yield shape | {"mode": mode, "first_pass": first_pass} | rates | row | found


def recorded(row):
    """The row of the CSV file: processor milliseconds are those of both threads, for a thousand users."""
    thousands = row["batch"] / 1000
    used = {side: round(1000 * row[f"{side}_processor_seconds"] / thousands, 2) for side in ["implicit", "recmill"]}
    return {
        "what": f"top {K} of all, seen filtered",
        "matrix": row["matrix"],
        "mode": row["mode"],
        "first_pass": row["first_pass"],
        "simd": row["simd"],
        "factors": row["factors"],
        "batch": row["batch"],
        "implicit": row["implicit_users_per_second"],
        "recmill": row["recmill_users_per_second"],
        "unit": "users/s",
        "ratio": row["ratio"],
        "implicit_processor": used["implicit"],
        "recmill_processor": used["recmill"],
        "processor_unit": "ms/1000 users",
        "processor_ratio": row["processor_ratio"],
        "identical_lists": row["identical_lists"],
        "peer": f"implicit {implicit.__version__}",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrices", default="ml20m-shape", help=f"of {', '.join(TRAINING)}")
    parser.add_argument("--factors", default="64,128")
    parser.add_argument("--batch", type=int, default=8192, help="users asked about at a time")
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--iterations", type=int, default=5, help="of ALS, where the factors are not there yet")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/recmill-peers"))
    parser.add_argument("--binary", help="topk_speed, when it is built already")
    parser.add_argument("--record", type=pathlib.Path, help="append the rows to this CSV file")
    args = parser.parse_args()

    binary = args.binary or built("-p", "recmill-benches", "--example", "topk_speed")
    version = f"implicit {implicit.__version__}, numpy {numpy.__version__}"
    print(f"# {datetime.date.today()} {record.processor()}, {THREADS} threads, {version}", file=sys.stderr)
    rows = []
    for name in args.matrices.split(","):
        matrix, path = load(args.work, name)
        print(f"# {name}: {matrix.shape[0]} x {matrix.shape[1]}, {matrix.nnz} seen items", file=sys.stderr)
        for factors in args.factors.split(","):
            for row in compare(binary, name, matrix, path, int(factors), args):
                rows.append(row)
                print(json.dumps(row), flush=True)
    if args.record:
        record.append(args.record, [recorded(row) for row in rows])


if __name__ == "__main__":
    main()
