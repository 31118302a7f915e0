"""An epoch of BPR, beside RecBole 1.2.1's on the CPU, and what both reach. One run, both sides.

    python benches/peers/recbole_bpr.py $RECMILL_DATA/ml1m-ncf

Needs `pip install torch`, and `pip install --no-deps recbole==1.2.1` with what it imports (colorlog, colorama, pyyaml, tqdm, texttable,
tabulate, psutil, scikit-learn, scipy, pandas, tensorboard). 64 factors, one negative an interaction, 2 threads on both sides:
  recbole    its BPR with its defaults (Adam at .001, batches of 2048), the seconds of its trainer's epoch, without validation
  recmill    `recmill train bpr` with its defaults but for the factors, the seconds that history.jsonl has of each epoch

Both are then asked for the ten best of each user's candidates (ml1m-ncf: 99 negatives and the test item), so the row says at what quality the
epochs were that fast. RecBole trains for --epochs, recmill for its default; the time of a whole training is beside.
"""

import argparse
import csv
import datetime
import json
import logging
import os
import pathlib
import subprocess
import tempfile
import time
import warnings

from turns import ROOT, THREADS, built, epochs_of

import numpy as np  # noqa: E402

# RecBole 1.2.1 asks numpy for names that numpy 2 has no more.
for name, kind in {"float": float, "int": int, "bool": bool, "object": object, "float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}.items():
    if not hasattr(np, name):
        setattr(np, name, kind)

import torch  # noqa: E402

import record  # noqa: E402

DIM, K = 64, 10


class RecBole:
    def __init__(self, train, work):
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, get_trainer, init_seed

        torch.set_num_threads(THREADS)
        # It leaves logs wherever it is run.
        here = pathlib.Path.cwd()
        os.chdir(work)
        logging.disable(logging.INFO)
        warnings.filterwarnings("ignore")
        folder = work / "ml1m"
        folder.mkdir()
        with (folder / "ml1m.inter").open("w") as file:
            file.write("user_id:token\titem_id:token\n")
            file.writelines(f"{user}\t{item}\n" for user, item in train)
        everything = {"split": {"RS": [1.0, 0, 0]}, "group_by": "user", "order": "RO", "mode": "full"}
        settings = {"data_path": str(work), "load_col": {"inter": ["user_id", "item_id"]}, "eval_args": everything}
        settings |= {"embedding_size": DIM, "use_gpu": False, "show_progress": False, "checkpoint_dir": str(work)}
        config = Config(model="BPR", dataset="ml1m", config_dict=settings)
        init_seed(0, True)
        self.data, _, _ = data_preparation(config, create_dataset(config))
        self.model = get_model("BPR")(config, self.data.dataset).to("cpu")
        self.trainer = get_trainer(config["MODEL_TYPE"], "BPR")(config, self.model)
        os.chdir(here)
        self.epochs = 0

    def epoch(self):
        began = time.perf_counter()
        self.trainer._train_epoch(self.data, self.epochs, show_progress=False)
        self.epochs += 1
        return time.perf_counter() - began

    def quality(self, candidates, test):
        """hr@10 and ndcg@10 of each user's candidates; what it does not know is last."""
        of = lambda kind: self.data.dataset.field2token_id[kind]  # noqa: E731
        users = self.model.user_embedding.weight.detach().numpy()
        items = self.model.item_embedding.weight.detach().numpy()
        hits, gains = 0, 0.0
        for user, wanted in test.items():
            listed = list(dict.fromkeys(candidates[user]))
            known = [of("item_id").get(item) for item in listed]
            scores = [users[of("user_id")[user]] @ items[at] if at is not None else -np.inf for at in known]
            best = [listed[at] for at in np.argsort(scores)[::-1][:K]]
            if wanted in best:
                hits += 1
                gains += 1 / np.log2(best.index(wanted) + 2)
        return hits / len(test), gains / len(test)


def ours(recmill, data, work):
    """Returns the seconds of each epoch, and hr@10 and ndcg@10."""
    out = work / "model"
    run = lambda *words: subprocess.run(list(map(str, [recmill, *words])), check=True, capture_output=True, text=True)  # noqa: E731
    common = ["--threads", THREADS, "--quiet"]
    run("train", "bpr", data / "train.csv", "--out", out, "--factors", DIM, "--no-loss", "--device", "cpu", *common)
    asked = ["--test", data / "test.csv", "--candidates", data / "candidates.csv", "--k", K, "--json"]
    metrics = json.loads(run("evaluate", out, *asked, *common).stdout)["metrics"]
    return [epoch["seconds"] for epoch in epochs_of(out)], metrics[f"hr@{K}"], metrics[f"ndcg@{K}"]


def pairs(path):
    with path.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [(row[0], row[1]) for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path, help="a folder with train.csv, test.csv and candidates.csv")
    parser.add_argument("--epochs", type=int, default=30, help="of RecBole [default: 30]")
    parser.add_argument("--recmill", help="a release build that is there")
    parser.add_argument("--record", type=pathlib.Path, help="folder below benches/record")
    options = parser.parse_args()
    options.data = options.data.resolve()
    recmill = options.recmill or built("-p", "recmill-cli", "--bin", "recmill")
    candidates = {}
    for user, item in pairs(options.data / "candidates.csv"):
        candidates.setdefault(user, []).append(item)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        peer = RecBole(pairs(options.data / "train.csv"), work)
        theirs, own = [], []
        # A whole training of ours after each third of theirs, so that a busy machine is busy for both.
        for epoch in range(options.epochs):
            theirs.append(peer.epoch())
            if epoch % max(options.epochs // 3, 1) == 0:
                own.append(ours(recmill, options.data, work))
        hr, ndcg = peer.quality(candidates, dict(pairs(options.data / "test.csv")))
    middle = lambda values: sorted(values)[len(values) // 2]  # noqa: E731
    epochs = [seconds for run in own for seconds in run[0]]
    row = {
        "date": datetime.date.today().isoformat(),
        "data": options.data.name,
        "torch": torch.__version__,
        "recbole_seconds_an_epoch": round(middle(theirs), 3),
        "recmill_seconds_an_epoch": round(middle(epochs), 4),
        "ratio": round(middle(theirs) / middle(epochs), 1),
        "recbole_epochs": options.epochs,
        "recmill_epochs": len(own[-1][0]),
        "recbole_hr10": round(hr, 4),
        "recbole_ndcg10": round(ndcg, 4),
        "recmill_hr10": round(own[-1][1], 4),
        "recmill_ndcg10": round(own[-1][2], 4),
    }
    print(json.dumps(row, indent=1))
    if options.record:
        record.append(ROOT / "benches/record" / options.record / f"{row['date']}-recbole.csv", [row])


if __name__ == "__main__":
    main()
