"""Quality of the rankers through the command: search on validation rows, then measure on the test file.

    export RECMILL_DATA=/path/to/data                                                   # folders frappe, adult, fraud-sim
    python3 benches/quality/rankers.py search frappe deepfm learning_rate=0.001,0.002 dropout=0.2,0.5
    python3 benches/quality/rankers.py run                                              # best of tried_rankers.csv, five seeds
    python3 benches/quality/rankers.py run frappe/deepfm --flags ""                     # one line, other flags: here the defaults

`search` sees training and validation rows alone (frappe's own validation file; of adult a tenth of the training rows by seed; of
fraud-sim the week after the training rows, without customers whose fraud is known by then) and appends each setting to
tried_rankers.csv. `run` takes the setting with the best validation auc there (fraud-sim: average precision), trains it for each
seed and measures the test file. Needs a release build; RECMILL names another binary, RECMILL_WORK another folder.
"""

import argparse
import csv
import itertools
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECMILL = os.environ.get("RECMILL", str(ROOT / "target/release/recmill"))
WORK = pathlib.Path(os.environ.get("RECMILL_WORK", ROOT / "target/quality"))
TRIED = pathlib.Path(os.environ.get("RECMILL_TRIED", pathlib.Path(__file__).with_name("tried_rankers.csv")))
COLUMNS = ["data", "model", "flags", "auc", "logloss", "average_precision", "epoch", "seconds"]


def train(data, model, flags, seed, test):
    if "RECMILL_DATA" not in os.environ:
        sys.exit("RECMILL_DATA is not set: it names the folder with frappe, adult and fraud-sim")
    folder = pathlib.Path(os.environ["RECMILL_DATA"]) / data
    arguments = ["train", model, folder / "train.csv", "--out", WORK / "ranker", "--keep", 1]
    arguments += [] if "--schema" in flags else ["--label", "label"]
    arguments += ["--seed", seed, "--json", "--quiet", *shlex.split(flags)]
    WORK.mkdir(parents=True, exist_ok=True)
    if (folder / "valid.csv").exists():
        arguments += ["--valid", folder / "valid.csv"]
    if data == "fraud-sim":
        arguments += ["--valid", week_after(folder)]
    if test:
        arguments += ["--test", folder / "test.csv"]
    began = time.time()
    done = subprocess.run([RECMILL, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"recmill {shlex.join(map(str, arguments))}\n{done.stderr}")
    return json.loads(done.stdout), time.time() - began


def week_after(folder):
    """The week between the training and the test rows of fraud-sim, without customers who had a fraud in training: as the test
    rows are made, one week before them."""
    path = WORK / "fraud-week.csv"
    if not path.exists():
        with (folder / "train.csv").open() as file:
            columns = next(csv.reader(file))
        with (folder / "transactions.csv").open() as file:
            rows = list(csv.DictReader(file))
        first = min(int(row["TX_TIME_DAYS"]) for row in rows)
        known = {row["CUSTOMER_ID"] for row in rows if int(row["TX_TIME_DAYS"]) < first + 7 and row["TX_FRAUD"] == "1"}
        week = [row for row in rows if first + 7 <= int(row["TX_TIME_DAYS"]) < first + 14 and row["CUSTOMER_ID"] not in known]
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([row["TX_FRAUD"] if name == "label" else row[name] for name in columns] for row in week)
    return path


def as_flags(setting):
    return " ".join(f"--{name.replace('_', '-')}={value}" for name, value in setting)


def search(data, model, grid):
    names = [one.split("=")[0] for one in grid]
    values = [[value for value in one.split("=")[1].split("|" if "|" in one else ",") if value] for one in grid]
    new = not TRIED.exists()
    with TRIED.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        for combination in itertools.product(*values):
            flags = as_flags(zip(names, combination))
            found, seconds = train(data, model, flags, 0, False)
            row = {name: f"{found['valid'][name]:.5f}" for name in ("auc", "logloss", "average_precision")}
            row |= {"data": data, "model": model, "flags": flags, "epoch": found["kept_epoch"], "seconds": f"{seconds:.0f}"}
            writer.writerow(row)
            file.flush()
            print(*row.values(), flush=True)


def best():
    chosen = {}
    with TRIED.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["data"], row["model"])
            # Frauds are few: what counts is how many are among the highest scores.
            metric = "average_precision" if row["data"] == "fraud-sim" else "auc"
            if key not in chosen or float(row[metric]) > float(chosen[key][metric]):
                chosen[key] = row
    return {key: row["flags"] for key, row in chosen.items()}


def run(only, flags, seeds):
    lines = best() if TRIED.exists() else {}
    if only:
        key = tuple(only.split("/"))
        lines = {key: lines.get(key, "") if flags is None else flags}
    print("| data | model | flags | auc | logloss | average precision | epochs kept | s a training |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for (data, model), setting in lines.items():
        runs = [train(data, model, setting, seed, True) for seed in range(seeds)]
        cells = []
        for metric in ("auc", "logloss", "average_precision"):
            values = [found["test"][metric] for found, _ in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.4f} ± {spread:.4f}")
        epochs = ", ".join(str(found["kept_epoch"]) for found, _ in runs)
        seconds = statistics.mean(seconds for _, seconds in runs)
        print(f"| {data} | {model} | `{setting}` | {' | '.join(cells)} | {epochs} | {seconds:.0f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    searching = commands.add_parser("search")
    searching.add_argument("data")
    searching.add_argument("model")
    searching.add_argument("grid", nargs="*", help="name=value,value ..; name=a,b|c,d where values have commas")
    running = commands.add_parser("run")
    running.add_argument("only", nargs="?")
    running.add_argument("--flags")
    running.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.command == "search":
        search(arguments.data, arguments.model, arguments.grid)
    else:
        run(arguments.only, arguments.flags, arguments.seeds)


if __name__ == "__main__":
    main()
