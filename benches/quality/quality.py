"""Quality of the models through the command: search on a validation cut, then measure on the test file.

    export RECMILL_DATA=/path/to/data                                              # folders as in docs/quality.md
    python3 benches/quality/quality.py search gowalla als factors=256 iterations=8,16   # every combination, on the cut
    python3 benches/quality/quality.py run                                         # best of tried.csv on the test files
    python3 benches/quality/quality.py run gowalla/als --flags ""                  # one line, other flags: here the defaults

`search` sees the training file alone and appends each setting with its validation figures to tried.csv beside this file;
`run` takes the setting with the best figure there, trains it on the whole training file for each seed and prints the table.
Needs a release build and nothing but Python 3. RECMILL names another binary, RECMILL_WORK another folder to write to.
"""

import argparse
import csv
import itertools
import json
import os
import pathlib
import random
import shlex
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECMILL = os.environ.get("RECMILL", str(ROOT / "target/release/recmill"))
WORK = pathlib.Path(os.environ.get("RECMILL_WORK", ROOT / "target/quality"))
TRIED = pathlib.Path(os.environ.get("RECMILL_TRIED", pathlib.Path(__file__).with_name("tried.csv")))
COLUMNS = ["data", "model", "flags", "first", "second", "seconds"]
# The two figures of each data set; the second decides for rankings, the first (rmse, smaller is better) for values.
FIGURES = {"ml1m-ncf": ("hr@10", "ndcg@10"), "gowalla": ("recall@20", "ndcg@20"),
           "yelp2018": ("recall@20", "ndcg@20"), "lastfm-seq": ("hr@10", "ndcg@10"),
           "beauty-seq": ("hr@10", "ndcg@10"), "video-seq": ("hr@10", "ndcg@10")}
DETERMINISTIC = ("item-knn", "ease", "most-popular")


def figures(data):
    return FIGURES.get(data, ("rmse", "mae"))


def data_folder():
    if "RECMILL_DATA" not in os.environ:
        sys.exit("RECMILL_DATA is not set: it names the folder with ml1m-ncf, gowalla, ml100k ...")
    return pathlib.Path(os.environ["RECMILL_DATA"])


def recmill(*arguments):
    done = subprocess.run([RECMILL, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"recmill {shlex.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def split(data, source, *flags):
    """Cuts a file into WORK/data/{train,valid,test}.csv, once."""
    out = WORK / data
    if not (out / "test.csv").exists():
        out.mkdir(parents=True, exist_ok=True)
        recmill("split", source, "--out", out, *flags)
    return out


def protocol(data, cut):
    """Returns the training files, flags of both commands, and the flags of each evaluation, of which the mean is taken."""
    folder = data_folder() / data
    if data == "ml1m-ncf":
        if not cut:
            return [folder / "train.csv"], [], [["--test", folder / "test.csv", "--candidates", folder / "candidates.csv"]]
        # The file is sorted by item: shuffled, the last two of each user are two random items.
        shuffled = WORK / "ml1m-ncf-shuffled.csv"
        if not shuffled.exists():
            WORK.mkdir(parents=True, exist_ok=True)
            head, *rows = (folder / "train.csv").read_text().splitlines()
            random.Random(0).shuffle(rows)
            shuffled.write_text("\n".join([head, *rows, ""]))
        parts = split(data, shuffled, "--leave-last-out")
        sampled = [["--test", parts / name, "--sampled-negatives", 99] for name in ("valid.csv", "test.csv")]
        return [parts / "train.csv"], [], sampled
    if data in ("gowalla", "yelp2018"):
        if not cut:
            return [folder / "train.csv"], [], [["--test", folder / "test.csv"]]
        parts = split(data, folder / "train.csv", "--fraction", 0.1, "--valid-fraction", 0, "--per-user", "--seed", 0)
        return [parts / "train.csv"], [], [["--test", parts / "test.csv"]]
    if data in ("lastfm-seq", "beauty-seq", "video-seq"):
        parts = split(data, folder / "events.csv", "--leave-last-out")
        ranked = ["--sampled-negatives", 100, "--seed", 0] if data == "video-seq" else []
        if cut:
            return [parts / "train.csv"], [], [["--test", parts / "valid.csv", *ranked]]
        return [parts / "train.csv", parts / "valid.csv"], [], [["--test", parts / "test.csv", *ranked]]
    if data.startswith("ml100k/u"):
        whole = data_folder() / f"{data}.train.csv"
        if not cut:
            return [whole], [], [["--test", data_folder() / f"{data}.test.csv"]]
        parts = split(data, whole, "--fraction", 0.1, "--valid-fraction", 0, "--seed", 0)
        return [parts / "train.csv"], [], [["--test", parts / "test.csv"]]
    if data == "frappe":
        held_out = folder / ("valid.csv" if cut else "test.csv")
        return [folder / "train.csv"], ["--value-column", "label"], [["--test", held_out]]
    sys.exit(f"no protocol for {data}")


def measure(data, model, flags, seed, cut):
    """Trains once; returns the two figures and the seconds that training took, reading included."""
    train, both, evaluations = protocol(data, cut)
    directory = WORK / "model"
    keys = ["--" + flag.replace("_", "-") for flag in flags.split()]
    started = time.monotonic()
    recmill("train", model, *train, *both, "--out", directory, "--keep", 1, "--seed", seed, "--no-loss", "--threads", 1, *keys)
    seconds = time.monotonic() - started
    k = [] if "rmse" in figures(data) else ["--k", figures(data)[0].split("@")[1]]
    answers = [
        json.loads(recmill("evaluate", directory, *both, *arguments, *k, "--threads", 1, "--json"))["metrics"]
        for arguments in evaluations
    ]
    return [statistics.fmean(answer[name] for answer in answers) for name in figures(data)], seconds


def tried():
    if not TRIED.exists():
        return []
    with TRIED.open(newline="") as file:
        return list(csv.DictReader(file))


def search(options):
    keys = [pair.split("=", 1) for pair in options.grid]
    for values in itertools.product(*(value.split(",") for _, value in keys)):
        flags = " ".join(f"{key}={value}" for (key, _), value in zip(keys, values))
        for data in options.data.split(","):
            if any((row["data"], row["model"], row["flags"]) == (data, options.model, flags) for row in tried()):
                continue
            (first, second), seconds = measure(data, options.model, flags, 0, cut=True)
            row = [data, options.model, flags, f"{first:.5f}", f"{second:.5f}", f"{seconds:.1f}"]
            new = not TRIED.exists()
            with TRIED.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([COLUMNS, row] if new else [row])
            print(*row, sep="  ", flush=True)


def best(data, model):
    rows = [row for row in tried() if (row["data"], row["model"]) == (data, model)]
    if not rows:
        sys.exit(f"nothing tried for {data} {model}: run search first")
    if "rmse" in figures(data):
        return min(rows, key=lambda row: float(row["first"]))["flags"]
    return max(rows, key=lambda row: float(row["second"]))["flags"]


def run(options):
    lines = options.lines or sorted({f"{row['data']}/{row['model']}" for row in tried()})
    print("| data | model | flags | figures | mean | of each seed | s a training |\n|---|---|---|---|---|---|---|")
    for line in lines:
        data, model = line.rsplit("/", 1)
        flags = best(data, model) if options.flags is None else options.flags
        seeds = range(1 if model in DETERMINISTIC else options.seeds)
        results = [measure(data, model, flags, seed, cut=False) for seed in seeds]
        pairs = [" / ".join(f"{value:.4f}" for value in values) for values, _ in results]
        mean = " / ".join(f"{statistics.fmean(column):.4f}" for column in zip(*(values for values, _ in results)))
        seconds = statistics.fmean(seconds for _, seconds in results)
        cells = [data, model, f"`{flags}`", " / ".join(figures(data)), mean, ", ".join(pairs), f"{seconds:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("search", help="tries every combination on the validation cut")
    command.add_argument("data", help="data set or several, by commas")
    command.add_argument("model")
    command.add_argument("grid", nargs="*", metavar="KEY=VALUE,VALUE")
    command.set_defaults(action=search)
    command = commands.add_parser("run", help="measures the best of tried.csv, or --flags, on the test files")
    command.add_argument("lines", nargs="*", metavar="DATA/MODEL")
    command.add_argument("--flags", metavar="'KEY=VALUE ...'", help="instead of the best; empty: the defaults")
    command.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, .. of models with randomness [default: 3]")
    command.set_defaults(action=run)
    options = parser.parse_args()
    options.action(options)


if __name__ == "__main__":
    main()
