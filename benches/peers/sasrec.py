"""Training of SASRec, beside PyTorch's on the CPU. One run, both sides.

    python benches/peers/sasrec.py DATA.csv                       # user,item,timestamp; docs/quality.md uses beauty-seq
    python benches/peers/sasrec.py --made-up                      # histories of 51 events each, so that nothing is padded

Needs `pip install torch`. The same model on both sides: 64 factors, 2 blocks of 1 head and a feed-forward network of 64, normalized
before, 50 events at most, dropout 0.5, softmax over all items, Adam at .001, batches of 128 histories, f32, 2 threads; the same
histories, each a sample:
  torch      eager; histories padded to 50 on the left, as in pmixer/SASRec.pytorch and RecBole; the loss is taken at the places that are
             events, not at padding; batches are tensors already
  recmill    the whole epoch of `recmill train sasrec`, by the seconds that history.jsonl has of it

In turn, so that a busy machine is busy for both; the first turn is left out. Both losses stand in the record: only what is drawn at random
differs, and that an item which its user has had is no negative in ours.
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

DIM, BLOCKS, LENGTH, BATCH, DROPOUT = 64, 2, 50, 128, 0.5


def read(path):
    histories = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            histories.setdefault(row["user"], []).append((int(row["timestamp"]), row["item"]))
    return [[item for _, item in sorted(events)] for events in histories.values()]


def made_up(users=2_000, items=12_000):
    """Walks over the items: the next one is near, more often than not."""
    draw = random.Random(0)
    histories = []
    for _ in range(users):
        at = draw.randrange(items)
        events = {at: None}
        while len(events) < LENGTH + 1:
            at = (at + draw.randrange(1, 20)) % items if draw.random() < 0.8 else draw.randrange(items)
            events[at] = None
        histories.append([str(item) for item in events])
    return histories


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.before = torch.nn.LayerNorm(DIM)
        self.attend = torch.nn.MultiheadAttention(DIM, 1, batch_first=True)
        self.between = torch.nn.LayerNorm(DIM)
        self.forward_network = torch.nn.Sequential(torch.nn.Linear(DIM, DIM), torch.nn.ReLU(), torch.nn.Linear(DIM, DIM))
        self.dropout = torch.nn.Dropout(DROPOUT)

    def forward(self, x, mask):
        normal = self.before(x)
        attended, _ = self.attend(normal, normal, normal, attn_mask=mask, need_weights=False)
        x = x + self.dropout(attended)
        return x + self.dropout(self.forward_network(self.between(x)))


class SasRec(torch.nn.Module):
    def __init__(self, items):
        super().__init__()
        self.items = torch.nn.Embedding(items + 1, DIM, padding_idx=items)
        torch.nn.init.normal_(self.items.weight, std=0.02)
        self.places = torch.nn.Embedding(LENGTH, DIM)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm = torch.nn.LayerNorm(DIM)
        self.dropout = torch.nn.Dropout(DROPOUT)
        self.register_buffer("mask", torch.triu(torch.ones(LENGTH, LENGTH, dtype=torch.bool), 1))

    def loss(self, before, after, known):
        x = self.dropout(self.items(before) * DIM**0.5 + self.places.weight)
        for block in self.blocks:
            x = block(x, self.mask)
        states = self.norm(x)[known]
        return torch.nn.functional.cross_entropy(states @ self.items.weight[:-1].T, after[known])


class Torch:
    def __init__(self, histories, items):
        torch.manual_seed(0)
        torch.set_num_threads(THREADS)
        self.network = SasRec(items)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.001)
        windows = []
        for events in histories:
            last = len(events) - 1
            while last > 0:
                n = min(last, LENGTH)
                windows.append((events[last - n : last], events[last - n + 1 : last + 1]))
                last -= n
        pad = lambda part: [items] * (LENGTH - len(part)) + part  # noqa: E731
        self.before = torch.tensor([pad(before) for before, _ in windows])
        self.after = torch.tensor([pad(after) for _, after in windows])
        self.known = self.before != items

    def epoch(self):
        """Returns seconds and the mean loss of the positions."""
        order = torch.randperm(len(self.before))
        began, total, positions = time.perf_counter(), 0.0, 0
        for batch in order.split(BATCH):
            self.optimizer.zero_grad(set_to_none=True)
            known = self.known[batch]
            loss = self.network.loss(self.before[batch], self.after[batch], known)
            loss.backward()
            self.optimizer.step()
            n = int(known.sum())
            total, positions = total + loss.item() * n, positions + n
        return time.perf_counter() - began, total / positions


def ours(recmill, data, work, epochs):
    """Returns seconds and loss of each epoch, of one training."""
    out = work / "model"
    command = [recmill, "train", "sasrec", data, "--out", out, "--keep", "1", "--holdout", "0", "--loss", "softmax"]
    command += ["--iterations", epochs, "--dropout", DROPOUT, "--threads", THREADS, "--quiet", "--device", "cpu"]
    subprocess.run(list(map(str, command)), check=True)
    return [(epoch["seconds"], epoch["loss"]) for epoch in epochs_of(out)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=pathlib.Path)
    parser.add_argument("--made-up", action="store_true")
    parser.add_argument("--epochs", type=int, default=3, help="the first of both is warm-up [default: 3]")
    parser.add_argument("--recmill", help="a release build that is there")
    parser.add_argument("--record", type=pathlib.Path, help="folder below benches/record")
    options = parser.parse_args()
    if (options.data is None) != options.made_up:
        parser.error("either DATA.csv or --made-up")
    recmill = options.recmill or built("-p", "recmill-cli", "--bin", "recmill")
    histories = made_up() if options.made_up else read(options.data)
    names = {item: at for at, item in enumerate(dict.fromkeys(item for events in histories for item in events))}
    peer = Torch([[names[item] for item in events] for events in histories], len(names))
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        data = work / "events.csv"
        with data.open("w") as file:
            file.write("user,item,timestamp\n")
            for user, events in enumerate(histories):
                file.writelines(f"{user},{item},{at}\n" for at, item in enumerate(events))
        theirs, own = [], []
        # One training of ours for each epoch of theirs, as long as it takes to be there.
        for epoch in range(1, options.epochs + 1):
            theirs.append(peer.epoch())
            own.append(ours(recmill, data, work, epoch)[-1])
    pairs = list(zip(theirs, own))[1:] or list(zip(theirs, own))
    middle = lambda values: sorted(values)[len(values) // 2]  # noqa: E731
    samples = len(peer.before)
    row = {
        "date": datetime.date.today().isoformat(),
        "data": "made up" if options.made_up else options.data.parent.name,
        "histories": samples,
        "events": int(peer.known.sum()),
        "items": len(names),
        "torch": torch.__version__,
        "torch_samples_a_second": round(samples / middle([their[0] for their, _ in pairs]), 1),
        "recmill_samples_a_second": round(samples / middle([our[0] for _, our in pairs]), 1),
        "ratio": round(middle([their[0] / our[0] for their, our in pairs]), 2),
        "torch_loss": round(theirs[-1][1], 4),
        "recmill_loss": round(own[-1][1], 4),
    }
    print(json.dumps(row, indent=1))
    if options.record:
        name = f"{row['date']}-sasrec.csv"
        record.append(ROOT / "benches/record" / options.record / name, [row])


if __name__ == "__main__":
    main()
