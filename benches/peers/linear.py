"""Forward and backward of a network of dense layers, beside PyTorch's f32 on the CPU: milliseconds a pass. One run, both sides.

    python benches/peers/linear.py                # 416-400-400-400-1, batch 4,096

Needs `pip install torch`. ReLU behind every layer but the last; the gradient of the output is given, that of the input is
asked for: the pass that the dense part of a DeepFM costs. Compared in turn, so that a busy machine is busy for both; the
first turn is left out:
  torch      eager, Linear and ReLU as modules, 2 threads; gradients set to None before, as optimizers do
  recmill    linear and linear_backward with one LinearScratch

The last turn's outputs and gradients are checked against each other by the length of their difference: 1e-2 of their own. (Not
value by value: a sum that is zero but for rounding passes a gradient on one side and none on the other.)
"""

import argparse
import datetime
import json
import pathlib
import sys
import time

from turns import THREADS, Child, built, medians

import numpy  # noqa: E402
import torch  # noqa: E402

import record  # noqa: E402

TOLERANCE = 1e-2


class Torch:
    def __init__(self, sizes, batch):
        torch.manual_seed(0)
        torch.set_num_threads(THREADS)
        layers = []
        for at, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
            layers.append(torch.nn.Linear(inputs, outputs))
            if at + 2 < len(sizes):
                layers.append(torch.nn.ReLU())
        self.network = torch.nn.Sequential(*layers)
        self.linears = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
        self.x = torch.randn(batch, sizes[0], requires_grad=True)
        self.gradient = torch.randn(batch, sizes[-1])

    def run(self):
        start, used = time.perf_counter(), time.process_time()
        self.network.zero_grad(set_to_none=True)
        self.x.grad = None
        self.y = self.network(self.x)
        self.y.backward(self.gradient)
        return time.perf_counter() - start, time.process_time() - used

    def write(self, folder):
        def save(name, tensor):
            tensor.detach().contiguous().numpy().astype("<f4").tofile(folder / name)

        save("x", self.x)
        save("gradient", self.gradient)
        for at, linear in enumerate(self.linears):
            save(f"weight{at}", linear.weight.T)
            save(f"bias{at}", linear.bias)

    def answers(self):
        yield f"y{len(self.linears) - 1}", self.y
        yield "of_x", self.x.grad
        for at, linear in enumerate(self.linears):
            yield f"of_weight{at}", linear.weight.grad.T
            yield f"of_bias{at}", linear.bias.grad


def check(theirs, folder):
    for name, tensor in theirs.answers():
        expected = tensor.detach().contiguous().numpy().ravel()
        got = numpy.fromfile(folder / name, dtype="<f4")
        apart = numpy.linalg.norm(got - expected) / numpy.linalg.norm(expected)
        if not apart <= TOLERANCE:
            raise SystemExit(f"{name} is apart by {apart} of its length")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="416,400,400,400,1")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/recmill-peers/linear"))
    parser.add_argument("--binary", help="linear_speed, when it is built already")
    parser.add_argument("--record", type=pathlib.Path, help="append the row to this CSV file")
    args = parser.parse_args()

    binary = args.binary or built("-p", "recmill-benches", "--example", "linear_speed")
    sizes = [int(size) for size in args.sizes.split(",")]
    print(f"# {datetime.date.today()} {record.processor()}, {THREADS} threads, torch {torch.__version__}", file=sys.stderr)
    args.work.mkdir(parents=True, exist_ok=True)
    theirs = Torch(sizes, args.batch)
    theirs.write(args.work)
    ours = Child(binary, args.batch, args.sizes, args.work)
    simd = ours.ask("simd")
    turns = [(theirs.run(), ours.times("pass")) for _ in range(args.turns)]
    assert ours.ask("save") == "saved"
    check(theirs, args.work)
    ours.close()
    row = medians("torch", *zip(*turns))
    products = sum(inputs * outputs for inputs, outputs in zip(sizes, sizes[1:]))
    gflop = 6e-9 * args.batch * products
    row |= {f"{side}_gflops": round(gflop / row[f"{side}_seconds"], 1) for side in ["torch", "recmill"]}
    print(json.dumps({"sizes": args.sizes, "batch": args.batch, "turns": args.turns, "simd": simd} | row))
    if args.record:
        columns = {
            "what": f"forward and backward of {args.sizes.replace(',', '-')}",
            "batch": args.batch,
            "simd": simd,
            "torch": round(1000 * row["torch_seconds"], 2),
            "recmill": round(1000 * row["recmill_seconds"], 2),
            "unit": "ms",
            "ratio": row["ratio"],
            "torch_processor": round(1000 * row["torch_processor_seconds"], 2),
            "recmill_processor": round(1000 * row["recmill_processor_seconds"], 2),
            "processor_ratio": row["processor_ratio"],
            "peer": f"torch {torch.__version__}",
        }
        record.append(args.record, [columns])


if __name__ == "__main__":
    main()
