"""Lists of a million items beside cuBLAS, and iterations of ALS beside implicit's GPU build, on one GPU.

    python benches/peers/retrieval_gpu.py --binary target/release/recmill --device cuda:0
    python benches/peers/retrieval_gpu.py --device cpu --torch-device cpu --turns 2         # a rehearsal without a GPU

Needs `pip install torch implicit==0.7.3`; implicit's GPU build needs the CUDA that it was built for, and where it finds none, its CPU build is
measured and the row says so. Our seconds are those of `recmill bench`. In turn, so that a busy machine is busy for both; the first turn is left out:
  topk       `score_topk_million`: scores, masks and selection, beside the product alone, [users, 64] x [64, 1 million], by torch.mm in f32
             (TF32 off), with TF32, and in f16; `score_topk_million_f16` beside it in f16 and f32
  als        `train_als`, an iteration by conjugate gradients on a matrix of MovieLens-20M's shape, beside implicit's on that of ml20m.py
"""

import argparse
import datetime
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time

from turns import built

import torch  # noqa: E402

import ml20m  # noqa: E402
import record  # noqa: E402

WARM_UP, COUNTED, ITERATIONS, ITEMS = 3, 9, 5, 1_000_000


def ours(args, name, factors):
    """Seconds of `recmill bench`, and what was measured, in its words."""
    command = [args.binary, "bench", "--device", args.device, "--only", name, "--factors", str(factors), "--json"]
    lines = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["operations"]
    return lines[0]["seconds"], lines[0]["shape"]


class Product:
    """The scores of all users and items in one precision, and nothing else."""

    def __init__(self, device, users, factors, kind):
        self.tf32, dtype = kind == "tf32", torch.float16 if kind == "f16" else torch.float32
        self.cuda = device.startswith("cuda")
        torch.manual_seed(0)
        self.users = torch.randn(users, factors, device=device, dtype=dtype)
        self.items = torch.randn(ITEMS, factors, device=device, dtype=dtype)
        self.out = torch.empty(users, ITEMS, device=device, dtype=dtype)

    def median(self):
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        seconds = []
        for _ in range(WARM_UP + COUNTED):
            start = time.perf_counter()
            torch.mm(self.users, self.items.T, out=self.out)
            if self.cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[WARM_UP:])


def topk(args):
    users = int(re.search(r"for (\d+) users", ours(args, "score_topk_million", 64)[1])[1])
    rows = []
    cases = {"f32 rows": "score_topk_million", "f16 rows": "score_topk_million_f16"}
    for kind, of in [("f32", "f32 rows"), ("tf32", "f32 rows"), ("f16", "f16 rows"), ("f32", "f16 rows")]:
        product = Product(args.torch_device, users, 64, kind)
        turns = [(product.median(), ours(args, cases[of], 64)[0]) for _ in range(args.turns)]
        rows.append(line(f"topk of {users} users, {of}, beside a product in {kind}", turns, f"torch {torch.__version__}"))
        del product
    return rows


def als(args):
    import implicit
    from implicit.als import AlternatingLeastSquares

    on_gpu = implicit.gpu.HAS_CUDA and args.torch_device.startswith("cuda")
    matrix = ml20m.load(args.work)

    def theirs(factors):
        seconds = []
        # The first iteration compiles and fills caches.
        model = AlternatingLeastSquares(factors=factors, iterations=ITERATIONS, use_gpu=on_gpu, random_state=0)
        model.fit(matrix, show_progress=False, callback=lambda at, took, *_: seconds.append(took))
        return statistics.median(seconds[1:])

    rows = []
    for factors in args.factors:
        turns = [(theirs(factors), ours(args, "train_als", factors)[0]) for _ in range(args.turns)]
        peer = f"implicit {implicit.__version__}, {'GPU' if on_gpu else 'CPU'}"
        rows.append(line(f"an iteration of als, {factors} factors", turns, peer))
    return rows


def line(what, turns, peer):
    turns = turns[1:] or turns
    theirs, ours = (statistics.median(turn[at] for turn in turns) for at in range(2))
    ratio = statistics.median(turn[0] / turn[1] for turn in turns)
    row = {"what": what, "peer_us": round(1e6 * theirs), "recmill_us": round(1e6 * ours), "ratio": round(ratio, 3)}
    row |= {"peer": peer}
    print(json.dumps(row), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["topk", "als"])
    parser.add_argument("--factors", type=int, nargs="+", default=[64, 128], help="of als")
    parser.add_argument("--device", default="cuda:0", help="as recmill calls it")
    parser.add_argument("--torch-device", default="cuda:0")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--binary", help="recmill, when it is built already")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/recmill-peers"))
    parser.add_argument("--record", type=pathlib.Path, help="append the rows to this CSV file")
    args = parser.parse_args()
    args.binary = args.binary or built("-p", "recmill-cli", "--bin", "recmill")
    gpu = torch.cuda.get_device_name(0) if args.torch_device.startswith("cuda") else "none"
    print(f"# {datetime.date.today()} GPU: {gpu}, torch {torch.__version__}", file=sys.stderr)
    rows = []
    for name, measure in [("topk", topk), ("als", als)]:
        if args.only in (None, name):
            rows += [row | {"gpu": gpu} for row in measure(args)]
    if args.record and rows:
        record.append(args.record, rows)


if __name__ == "__main__":
    main()
