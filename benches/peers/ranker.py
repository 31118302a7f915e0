"""Training steps and scoring of DeepFM and DLRM, beside PyTorch's on the CPU. One run, both sides.

    python benches/peers/ranker.py                          # deepfm and dlrm, sgd, adagrad and adam, f32
    python benches/peers/ranker.py --only dlrm/adagrad

Needs `pip install torch`. 26 tables of 38,462 rows (1 million in all), 16 values a row, ids by a power law; 13 numbers for DLRM, none
for DeepFM; hidden layers 400-400-400; batch 4,096; no dropout. Both sides train on the same rows; in turn, so that a
busy machine is busy for both; the first turn is left out:
  torch      eager, 2 threads: one nn.EmbeddingBag(sparse=True) a table (and one of width 1 for DeepFM's weights), SparseAdam,
             Adagrad or SGD for the tables and Adam, Adagrad or SGD for the rest; batches are tensors already
  recmill    the whole loop of `recmill train`, loading included

The mean losses over all steps, which are those of one pass over the rows, are compared: they must be within .05 of each other.
"""

import argparse
import datetime
import json
import os
import pathlib
import sys
import time

from turns import THREADS, Child, built, medians

import numpy  # noqa: E402
import torch  # noqa: E402

import record  # noqa: E402

TABLES, BUCKETS, DIM, NUMBERS, HIDDEN = 26, 38_462, 16, 13, [400, 400, 400]


def draw(rows, seed=0):
    """Ids by a power law, numbers, and labels that depend on some of them."""
    random = numpy.random.default_rng(seed)
    weights = 1 / numpy.arange(1, BUCKETS + 1) ** 1.05
    steps = numpy.cumsum(weights) / weights.sum()
    ids = numpy.searchsorted(steps, random.random((rows, TABLES))).astype(numpy.int64)
    numbers = random.standard_normal((rows, NUMBERS)).astype(numpy.float32)
    lean = numpy.sin(ids[:, :4]).sum(axis=1) + numbers[:, 0]
    labels = (random.random(rows) < 1 / (1 + numpy.exp(-lean))).astype(numpy.float32)
    return ids, numbers, labels


def write(path, ids, numbers, labels):
    names = ["label"] + [f"c{at}" for at in range(TABLES)]
    columns = [labels.astype(int)[:, None], ids]
    if numbers is not None:
        names += [f"x{at}" for at in range(NUMBERS)]
        columns.append(numbers)
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        for row in zip(*(column.tolist() for column in columns)):
            file.write(",".join(str(value) for part in row for value in part) + "\n")


def mlp(width):
    layers = []
    for hidden in HIDDEN:
        layers += [torch.nn.Linear(width, hidden), torch.nn.ReLU()]
        width = hidden
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))


def tables(dim):
    made = torch.nn.ModuleList(torch.nn.EmbeddingBag(BUCKETS, dim, mode="sum", sparse=True) for _ in range(TABLES))
    for table in made:
        torch.nn.init.normal_(table.weight, std=0.01)
    return made


def look_up(modules, ids):
    return torch.stack([module(ids[:, at : at + 1]) for at, module in enumerate(modules)], dim=1)


class DeepFm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tables, self.first = tables(DIM), tables(1)
        self.deep = mlp(TABLES * DIM)
        self.bias = torch.nn.Parameter(torch.zeros(1))

    def forward(self, ids, numbers):
        x = look_up(self.tables, ids)
        first = look_up(self.first, ids).sum(dim=1)
        second = 0.5 * (x.sum(dim=1).square() - x.square().sum(dim=1)).sum(dim=1, keepdim=True)
        return (self.bias + first + second + self.deep(x.flatten(1))).squeeze(1)


class Dlrm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = tables(DIM)
        self.bottom = torch.nn.Sequential(
            torch.nn.Linear(NUMBERS, 128), torch.nn.ReLU(), torch.nn.Linear(128, DIM), torch.nn.ReLU()
        )
        self.pairs = torch.tril_indices(TABLES + 1, TABLES + 1, offset=-1)
        self.top = mlp(DIM + self.pairs.shape[1])

    def forward(self, ids, numbers):
        bottom = self.bottom(numbers)
        x = torch.cat([bottom.unsqueeze(1), look_up(self.tables, ids)], dim=1)
        dots = torch.bmm(x, x.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([bottom, dots], dim=1)).squeeze(1)


class Torch:
    def __init__(self, model, optimizer, batch, data, bf16):
        torch.manual_seed(0)
        torch.set_num_threads(THREADS)
        self.network = {"deepfm": DeepFm, "dlrm": Dlrm}[model]()
        of_tables = [p for name, p in self.network.named_parameters() if name.startswith(("tables", "first"))]
        others = [p for name, p in self.network.named_parameters() if not name.startswith(("tables", "first"))]
        sparse, dense = {
            "sgd": (torch.optim.SGD, torch.optim.SGD),
            "adagrad": (torch.optim.Adagrad, torch.optim.Adagrad),
            "adam": (torch.optim.SparseAdam, torch.optim.Adam),
        }[optimizer]
        self.optimizers = [sparse(of_tables, lr=RATES[optimizer]), dense(others, lr=RATES[optimizer])]
        ids, numbers, labels = (torch.from_numpy(part) for part in data)
        self.batches = list(zip(ids.split(batch), numbers.split(batch), labels.split(batch)))
        self.at, self.bf16, self.losses = 0, bf16, 0.0
        self.data = ids, numbers

    def forward(self, ids, numbers):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.network(ids, numbers)

    def steps(self, n):
        start, used = time.perf_counter(), time.process_time()
        for _ in range(n):
            ids, numbers, labels = self.batches[self.at % len(self.batches)]
            self.at += 1
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(self.forward(ids, numbers).float(), labels)
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
            self.losses += loss.item()
        return time.perf_counter() - start, time.process_time() - used

    def score(self, rows, times):
        ids, numbers = (part[:rows] for part in self.data)
        start, used = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            for _ in range(times):
                self.forward(ids, numbers).sigmoid()
        return time.perf_counter() - start, time.process_time() - used


RATES = {"sgd": 0.1, "adagrad": 0.01, "adam": 0.001}


def compare(model, optimizer, args, data):
    ids, numbers, labels = data
    rows = args.work / f"{model}.csv"
    write(rows, ids, numbers if model == "dlrm" else None, labels)
    config = {"model": model, "embedding_dim": DIM, "hidden": HIDDEN, "dropout": 0.0, "epochs": 1000}
    config |= {"batch_size": args.batch, "learning_rate": RATES[optimizer]}
    config |= {"optimizer": optimizer, "table_optimizer": optimizer}
    if args.bf16:
        config["dense_precision"] = "bf16"
    path = args.work / "model.json"
    path.write_text(json.dumps(config))
    theirs = Torch(model, optimizer, args.batch, data, args.bf16)
    os.environ["HASH_BUCKETS"] = str(BUCKETS)
    ours = Child(args.binary, path, rows)
    simd = ours.ask("simd")
    cases = [("training", args.batch, lambda: theirs.steps(args.steps), ["steps", args.steps], args.steps)]
    if optimizer == "adam" and not args.bf16:  # recmill scores in f32
        for size, times in [(1, 400), (64, 100), (4096, 5)]:
            cases.append(
                ("scoring", size, lambda size=size, times=times: theirs.score(size, times), ["score", size, times], times)
            )
    for what, batch, run, words, times in cases:
        turns = [(run(), ours.times(*words)) for _ in range(args.turns)]
        row = medians("torch", *zip(*turns))
        per = 1e6 / times
        yield {
            "what": f"{what}, {model}" + (f", {optimizer}" if what == "training" else ""),
            "batch": batch,
            "products": "bf16" if args.bf16 else "f32",
            "simd": simd,
            "torch": round(per * row["torch_seconds"]),
            "recmill": round(per * row["recmill_seconds"]),
            "unit": "us a batch",
            "ratio": row["ratio"],
            "torch_processor": round(per * row["torch_processor_seconds"]),
            "recmill_processor": round(per * row["recmill_processor_seconds"]),
            "processor_ratio": row["processor_ratio"],
            "peer": f"torch {torch.__version__}",
        }
    theirs.steps(1)
    loss, their_loss = float(ours.ask("steps", 1).split()[2]), theirs.losses / theirs.at
    if not abs(loss - their_loss) < 0.05:
        raise SystemExit(f"{model}, {optimizer}: losses {loss} and {their_loss}")
    ours.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="such as dlrm/adam")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=50 * 4096)
    parser.add_argument("--steps", type=int, default=5, help="steps a turn")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--bf16", action="store_true", help="products in bf16 on both sides; PyTorch's by autocast")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/recmill-peers/ranker"))
    parser.add_argument("--binary", help="ranker_speed, when it is built already")
    parser.add_argument("--record", type=pathlib.Path, help="append the rows to this CSV file")
    args = parser.parse_args()
    args.binary = args.binary or built("-p", "recmill-benches", "--example", "ranker_speed")
    args.work.mkdir(parents=True, exist_ok=True)
    print(f"# {datetime.date.today()} {record.processor()}, {THREADS} threads, torch {torch.__version__}", file=sys.stderr)
    data = draw(args.rows)
    for model in ["deepfm", "dlrm"]:
        for optimizer in ["sgd", "adagrad", "adam"]:
            if args.only in (None, model, f"{model}/{optimizer}"):
                rows = list(compare(model, optimizer, args, data))
                for row in rows:
                    print(json.dumps(row), flush=True)
                if args.record:
                    record.append(args.record, rows)


if __name__ == "__main__":
    main()
