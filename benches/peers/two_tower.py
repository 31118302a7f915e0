"""Training of a two-tower model, beside PyTorch's on the CPU. One run, both sides.

    python benches/peers/two_tower.py                             # made-up interactions
    python benches/peers/two_tower.py DATA.csv                    # user,item

Needs `pip install torch`. The same model on both sides: a vector of 64 numbers for each user and item, a network of 128 hidden values and one of
64 outputs for each side, cosine over a temperature of 0.1, softmax over the items of a batch of 4,096 interactions with log-Q, Adam at .001 for
networks and vectors, f32, 2 threads:
  torch      eager; as fast as it was found to be: vectors are stepped by SparseAdam where that is faster than Adam over whole tables,
             which is tried first; batches are tensors already. Each interaction's item is a candidate, so one that is there twice counts twice,
             and what a user has had is hidden from nobody but as the positives of others in the batch that are the same item
  recmill    the whole epoch of `recmill train two-tower`, by the seconds that history.jsonl has of it; what its users have had is hidden

In turn, so that a busy machine is busy for both; the first turn is left out.
"""

import argparse
import csv
import datetime
import json
import pathlib
import random
import subprocess
import tempfile
import time

from turns import ROOT, THREADS, built, epochs_of

import torch  # noqa: E402

import record  # noqa: E402

DIM, HIDDEN, BATCH, TEMPERATURE = 64, 128, 4096, 0.1


def read(path):
    with open(path, newline="") as file:
        return [(row["user"], row["item"]) for row in csv.DictReader(file)]


def made_up(users=30_000, items=40_000, interactions=800_000):
    """Users of 100 tastes, and items that are taken the more the lower their number within a taste."""
    draw = random.Random(0)
    pairs = {}
    while len(pairs) < interactions:
        user = draw.randrange(users)
        at = int((items // 100) * draw.random() ** 2)
        taste = user % 100 if draw.random() < 0.8 else draw.randrange(100)
        pairs[(str(user), str(at * 100 + taste))] = None
    return list(pairs)


class Tower(torch.nn.Module):
    def __init__(self, n, sparse):
        super().__init__()
        self.vectors = torch.nn.Embedding(n, DIM, sparse=sparse)
        torch.nn.init.normal_(self.vectors.weight, std=0.1 / DIM**0.5)
        self.network = torch.nn.Sequential(torch.nn.Linear(DIM, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, DIM))

    def forward(self, rows):
        return torch.nn.functional.normalize(self.network(self.vectors(rows)))


class Torch:
    def __init__(self, pairs, users, items, sparse):
        torch.manual_seed(0)
        torch.set_num_threads(THREADS)
        self.pairs = torch.tensor(pairs)
        self.users, self.items = Tower(users, sparse), Tower(items, sparse)
        towers = (self.users, self.items)
        vectors = [tower.vectors.weight for tower in towers]
        networks = [parameter for tower in towers for parameter in tower.network.parameters()]
        if sparse:
            self.optimizers = [torch.optim.SparseAdam(vectors, lr=0.001), torch.optim.Adam(networks, lr=0.001)]
        else:
            self.optimizers = [torch.optim.Adam(vectors + networks, lr=0.001)]
        counts = torch.bincount(self.pairs[:, 1], minlength=items).float()
        self.log_q = (counts / len(pairs) * BATCH).clamp(1e-9, 1.0).log()

    def epoch(self):
        """Returns seconds and the mean loss."""
        order = torch.randperm(len(self.pairs))
        began, total = time.perf_counter(), 0.0
        for batch in order.split(BATCH):
            users, items = self.pairs[batch].T
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            scores = self.users(users) @ self.items(items).T / TEMPERATURE - self.log_q[items]
            same = (items[:, None] == items[None, :]).fill_diagonal_(False)
            loss = torch.nn.functional.cross_entropy(scores.masked_fill(same, float("-inf")), torch.arange(len(items)))
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()
            total += loss.item() * len(items)
        return time.perf_counter() - began, total / len(self.pairs)


def ours(recmill, data, work, epochs):
    """Returns seconds and loss of each epoch, of one training."""
    out = work / "model"
    command = [recmill, "train", "two-tower", data, "--out", out, "--keep", "1", "--holdout", "0", "--hidden", HIDDEN]
    command += ["--factors", DIM, "--batch-size", BATCH, "--n-negatives", 0, "--temperature", TEMPERATURE]
    command += ["--iterations", epochs, "--threads", THREADS, "--quiet", "--device", "cpu"]
    subprocess.run(list(map(str, command)), check=True)
    return [(epoch["seconds"], epoch["loss"]) for epoch in epochs_of(out)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=3, help="the first of both is warm-up [default: 3]")
    parser.add_argument("--recmill", help="a release build that is there")
    parser.add_argument("--record", type=pathlib.Path, help="folder below benches/record")
    options = parser.parse_args()
    recmill = options.recmill or built("-p", "recmill-cli", "--bin", "recmill")
    pairs = read(options.data) if options.data else made_up()
    users, items = ({name: at for at, name in enumerate(dict.fromkeys(names))} for names in zip(*pairs))
    numbers = [(users[user], items[item]) for user, item in pairs]
    peers = {kind: Torch(numbers, len(users), len(items), kind == "sparse") for kind in ("sparse", "whole tables")}
    kind = min(peers, key=lambda kind: peers[kind].epoch()[0])
    peer = Torch(numbers, len(users), len(items), kind == "sparse")
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        data = work / "events.csv"
        with data.open("w") as file:
            file.write("user,item\n")
            file.writelines(f"{user},{item}\n" for user, item in numbers)
        theirs, own = [], []
        # One training of ours for each epoch of theirs, as long as it takes to be there.
        for epoch in range(1, options.epochs + 1):
            theirs.append(peer.epoch())
            own.append(ours(recmill, data, work, epoch)[-1])
    turns = list(zip(theirs, own))[1:] or list(zip(theirs, own))
    middle = lambda values: sorted(values)[len(values) // 2]  # noqa: E731
    row = {
        "date": datetime.date.today().isoformat(),
        "data": options.data.parent.name if options.data else "made up",
        "users": len(users),
        "items": len(items),
        "interactions": len(numbers),
        "torch": torch.__version__,
        "torch_adam": kind,
        "torch_samples_a_second": round(len(numbers) / middle([their[0] for their, _ in turns]), 1),
        "recmill_samples_a_second": round(len(numbers) / middle([our[0] for _, our in turns]), 1),
        "ratio": round(middle([their[0] / our[0] for their, our in turns]), 2),
        "torch_loss": round(theirs[-1][1], 4),
        "recmill_loss": round(own[-1][1], 4),
    }
    print(json.dumps(row, indent=1))
    if options.record:
        name = f"{row['date']}-two-tower.csv"
        record.append(ROOT / "benches/record" / options.record / name, [row])


if __name__ == "__main__":
    main()
