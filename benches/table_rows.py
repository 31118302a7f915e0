"""What a training step costs as the embedding table grows: the same rows, hashed into ever more buckets, through the command.

    python3 benches/table_rows.py                             # 10 thousand to 100 million rows of 16 values in f16
    python3 benches/table_rows.py --rows 1000000 --record benches/record/FOLDER/table_rows.csv

A factorization machine over two columns of uniformly drawn ids, row-wise Adagrad, batch 4,096; so each step touches about 8,192
rows, and only the memory that they lie in grows. Samples a second are those of the second epoch's updates, from history.jsonl;
memory is the process's peak. Needs a release build; RECMILL names another binary. Writes the model, 3.4 GB at 100 million rows, to --work.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))
import record  # noqa: E402

RECMILL = os.environ.get("RECMILL", str(HERE.parent / "target/release/recmill"))
SCHEMA = """
[[columns]]
name = "a"
kind = "categorical"
hash_buckets = {buckets}

[[columns]]
name = "b"
kind = "categorical"
hash_buckets = {buckets}

[[columns]]
name = "label"
kind = "label"
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, action="append", help="rows of the table")
    parser.add_argument("--samples", type=int, default=400_000)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/recmill-table-rows"))
    parser.add_argument("--record", type=pathlib.Path, help="append the rows to this CSV file")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    data, schema, model = (args.work / name for name in ["rows.csv", "schema.toml", "model"])
    draw = random.Random(0)
    with data.open("w") as file:
        file.write("a,b,label\n")
        for _ in range(args.samples):
            a, b = draw.randrange(1 << 40), draw.randrange(1 << 40)
            file.write(f"{a},{b},{(a ^ b) & 1}\n")
    for rows in args.rows or [10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]:
        schema.write_text(SCHEMA.format(buckets=rows // 2))
        shutil.rmtree(model, ignore_errors=True)
        command = [RECMILL, "train", "fm", data, "--schema", schema, "--out", model, "--embedding-dim", 16, "--epochs", 2]
        command += ["--batch-size", 4096, "--table-precision", "f16", "--table-optimizer", "row-wise-adagrad", "--holdout", 0]
        child = subprocess.Popen([*map(str, command), "--quiet"], stderr=subprocess.PIPE, text=True)
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(child.stderr.read())
        history = (model / "versions/1/history.jsonl").read_text().splitlines()
        seconds = json.loads(history[1])["seconds"]
        row = {
            "rows": rows,
            "values": 16,
            "type": "f16",
            "samples_per_second": round(args.samples / seconds),
            "ms_per_step": round(1000 * seconds * 4096 / args.samples, 2),
            "peak_memory_gib": round(usage.ru_maxrss / 2**20, 2),
        }
        print(json.dumps(row), flush=True)
        if args.record:
            record.append(args.record, [row])
    shutil.rmtree(args.work, ignore_errors=True)


if __name__ == "__main__":
    main()
