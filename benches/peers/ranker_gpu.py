"""Training steps and scoring of DLRM and DCN-v2 on a GPU, beside PyTorch's on the same one.

    python benches/peers/ranker_gpu.py --binary target/release/recmill --device cuda:0
    python benches/peers/ranker_gpu.py --device cpu --torch-device cpu --batches 4096     # a rehearsal without a GPU

Needs `pip install torch`. The networks of `recmill bench` (its `train_dlrm`, `score_dlrm`, `train_dcn_v2`, `score_dcn_v2`, whose seconds
are read from its --json) and the same in PyTorch: 26 tables of 38,462 rows, 16 values a row, 13 numbers, hidden layers 400-400-400, three
cross layers, Adagrad. Both sides in turn, so that a busy machine is busy for both; the first turn is left out:
  eager      nn.EmbeddingBag(sparse=True) a table, as in ranker.py; products in TF32, as ours
  compiled   the network by torch.compile(mode="max-autotune-no-cudagraphs"); tables as in eager
  recmill    the whole step of `recmill train`, loading included; for scoring, rows that are on the host, as scores are
"""

import argparse
import datetime
import json
import pathlib
import statistics
import subprocess
import sys
import time

from turns import built

import torch  # noqa: E402

import record  # noqa: E402
from ranker import DIM, NUMBERS, TABLES, Dlrm, draw, look_up, mlp, tables  # noqa: E402

WARM_UP, COUNTED, CROSS_LAYERS, RATE = 3, 9, 3, 0.01


class Dcn(torch.nn.Module):
    def __init__(self):
        super().__init__()
        width = TABLES * DIM + NUMBERS
        self.tables = tables(DIM)
        self.cross = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(CROSS_LAYERS))
        deep = list(mlp(width).children())
        self.deep = torch.nn.Sequential(*deep[:-1])
        self.head = torch.nn.Linear(width + deep[-1].in_features, 1)

    def forward(self, ids, numbers):
        x0 = torch.cat([look_up(self.tables, ids).flatten(1), numbers], dim=1)
        x = x0
        for layer in self.cross:
            x = x0 * layer(x) + x
        return self.head(torch.cat([x, self.deep(x0)], dim=1)).squeeze(1)


class Torch:
    def __init__(self, model, data, device, compiled):
        torch.manual_seed(0)
        self.device = device
        self.network = {"dlrm": Dlrm, "dcn_v2": Dcn}[model]().to(device)
        if model == "dlrm":
            self.network.pairs = self.network.pairs.to(device)
        tables = [p for name, p in self.network.named_parameters() if name.startswith("tables")]
        others = [p for name, p in self.network.named_parameters() if not name.startswith("tables")]
        self.optimizers = [torch.optim.Adagrad(part, lr=RATE) for part in (tables, others)]
        self.run = torch.compile(self.network, mode="max-autotune-no-cudagraphs") if compiled else self.network
        self.data = [torch.from_numpy(part) for part in data]

    def wait(self):
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def step(self):
        ids, numbers, labels = (part.to(self.device, non_blocking=True) for part in self.data)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(self.run(ids, numbers), labels)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        # Each step's loss is looked at, as we do to find what is not finite.
        return loss.item()

    def score(self):
        ids, numbers, _ = (part.to(self.device) for part in self.data)
        with torch.inference_mode():
            return self.run(ids, numbers).sigmoid().cpu()

    def median(self, what):
        seconds = []
        for _ in range(WARM_UP + COUNTED):
            start = time.perf_counter()
            {"train": self.step, "score": self.score}[what]()
            self.wait()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[WARM_UP:])


def ours(args, name, batch):
    """The seconds of `recmill bench`, from its line for this batch."""
    command = [args.binary, "bench", "--device", args.device, "--only", name, "--json"]
    lines = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["operations"]
    found = [line for line in lines if f" {batch} rows" in line["shape"]]
    if not found:
        raise SystemExit(f"no line of {batch} rows among {lines}")
    return found[0]["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="such as train_dlrm")
    parser.add_argument("--device", default="cuda:0", help="as recmill calls it")
    parser.add_argument("--torch-device", default="cuda:0")
    parser.add_argument("--batches", type=int, nargs="+", default=[16_384, 65_536])
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--binary", help="recmill, when it is built already")
    parser.add_argument("--record", type=pathlib.Path, help="append the rows to this CSV file")
    args = parser.parse_args()
    args.binary = args.binary or built("-p", "recmill-cli", "--bin", "recmill")
    torch.set_float32_matmul_precision("high")
    gpu = torch.cuda.get_device_name(0) if args.torch_device.startswith("cuda") else "none"
    print(f"# {datetime.date.today()} GPU: {gpu}, torch {torch.__version__}", file=sys.stderr)
    rows = []
    for batch in args.batches:
        data = draw(batch)
        for model in ["dlrm", "dcn_v2"]:
            names = [f"{what}_{model}" for what in ("train", "score") if args.only in f"{what}_{model}"]
            sides = {name: Torch(model, data, args.torch_device, name == "compiled") for name in ("eager", "compiled")}
            for name in names:
                what = name.split("_")[0]
                turns = []
                for _ in range(args.turns):
                    turns.append([side.median(what) for side in sides.values()] + [ours(args, name, batch)])
                turns = turns[1:] or turns
                eager, compiled, recmill = (statistics.median(turn[at] for turn in turns) for at in range(3))
                row = {"what": name, "batch": batch, "eager": eager, "compiled": compiled, "recmill": recmill}
                row = {key: round(1e6 * value) if isinstance(value, float) else value for key, value in row.items()}
                row |= {"unit": "us a batch"}
                row |= {"ratio_eager": round(statistics.median(turn[0] / turn[2] for turn in turns), 3)}
                row |= {"ratio_compiled": round(statistics.median(turn[1] / turn[2] for turn in turns), 3)}
                row |= {"gpu": gpu, "peer": f"torch {torch.__version__}"}
                print(json.dumps(row), flush=True)
                rows.append(row)
    if args.record and rows:
        record.append(args.record, rows)


if __name__ == "__main__":
    main()
