"""CSV with text ids to rows by user, beside polars, pyarrow and pandas: rows a second, peak memory. A process a reading.

    python benches/peers/read.py                  # 20 million rows, in the order of users and shuffled
    python benches/peers/read.py --rows 2000000 --orders shuffled --peers polars,pandas --turns 2

Needs `pip install polars pyarrow pandas scipy`. The file has the header user,item,value and ids such as
u123456 and i12345; its rows are the pairs of ml20m.py's matrix, and some of them again until there are --rows. It is kept
under --work.

All sides read the same file with 2 threads, in turn, so that a busy machine is busy for all; the first turn is left out, and
brings the file into memory. All end with both columns of ids numbered and, by user, the distinct items ascending, repeats
summed:
  recmill   `recmill train most-popular FILE --dry-run --threads 2`, the released command. The clock is its own "read N rows
            from FILE in S", which has the order of each user's rows and a fingerprint in it; the processor's seconds are
            those of the whole command
  polars    read_csv into a Categorical for each id; codes and values into scipy's coo_matrix; tocsr()
  polars-scan
            scan_csv of text, cast to a Categorical within the query; the same matrix
  pyarrow   csv.read_csv into a dictionary for each id, the dictionaries made one; the same matrix
  pandas    read_csv(engine="pyarrow") into categories; the same matrix
Which peer is the fastest depends on the order of rows, so ours is to be held against the fastest of each order. Clock and
processor's seconds of a peer begin after its imports and end with the matrix.

Peak memory is that of the process, as the kernel counts it; what a file of 1000 rows takes stands beside it. `finished_kb`
is our finished dataset with rows by item: 20 bytes a pair, 8 a row pointer, 20 and its text an id. The peak should be within
twice that plus a constant: `peak_over_finished` is what comes on top of the small file's, over `finished_kb`.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from turns import THREADS, built, medians

import record

# Numbers and tables are imported where they are needed: the kernel counts a child's peak from this process's own, so this
# one must stay small. Its 15 MB or so are the least that any side is said to take.
os.environ["POLARS_MAX_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(THREADS)

BLOCK = 1 << 20
FEW_ROWS = 1000


def write_csv(path, work, rows, order):
    import numpy
    import pyarrow
    import pyarrow.csv

    import ml20m

    matrix = ml20m.load(work)
    random = numpy.random.default_rng(1)
    again = random.integers(0, matrix.nnz, max(0, rows - matrix.nnz))
    entries = numpy.concatenate([numpy.arange(min(rows, matrix.nnz)), again])
    entries = random.permutation(entries) if order == "shuffled" else numpy.sort(entries)
    users = numpy.repeat(numpy.arange(matrix.shape[0], dtype=numpy.int32), numpy.diff(matrix.indptr))
    names = [pyarrow.array([f"{letter}{index}" for index in range(n)]) for letter, n in zip("ui", matrix.shape)]
    schema = pyarrow.schema([("user", pyarrow.string()), ("item", pyarrow.string()), ("value", pyarrow.int8())])
    unfinished = path.with_suffix(".part")
    plain = pyarrow.csv.WriteOptions(quoting_style="none", quoting_header="none")
    with pyarrow.csv.CSVWriter(unfinished, schema, write_options=plain) as writer:
        for at in range(0, len(entries), BLOCK):
            block = entries[at : at + BLOCK]
            ids = [names[0].take(pyarrow.array(users[block])), names[1].take(pyarrow.array(matrix.indices[block]))]
            values = pyarrow.array(matrix.data[block].astype(numpy.int8))
            writer.write_table(pyarrow.table([*ids, values], schema=schema))
    unfinished.rename(path)


def csv_file(work, rows, order):
    """Returns the file, which a process of its own makes on the first call."""
    path = work / f"ml20m-{order}-{rows}.csv"
    if not path.exists():
        this = [sys.executable, __file__, "--work", work, "--rows", rows, "--orders", order, "--write", path]
        subprocess.run([str(word) for word in this], check=True)
    return path


def by_polars():
    import polars

    def read(path):
        # A family of categories a column: the codes of each count from 0 without gaps.
        text = {side: polars.Categorical(polars.Categories(side)) for side in ["user", "item"]}
        frame = polars.read_csv(path, schema=text | {"value": polars.Float32})
        return [frame[side].to_physical().to_numpy() for side in text], frame["value"].to_numpy()

    return read, polars.__version__


def by_polars_scan():
    import polars

    def read(path):
        sides = ["user", "item"]
        texts = polars.scan_csv(path, schema=dict.fromkeys(sides, polars.String) | {"value": polars.Float32})
        code = lambda side: polars.col(side).cast(polars.Categorical(polars.Categories(side))).to_physical()
        frame = texts.with_columns(*map(code, sides)).collect()
        return [frame[side].to_numpy() for side in sides], frame["value"].to_numpy()

    return read, polars.__version__


def by_pyarrow():
    import pyarrow
    import pyarrow.csv

    def read(path):
        text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        kinds = {"user": text, "item": text, "value": pyarrow.float32()}
        options = pyarrow.csv.ConvertOptions(column_types=kinds)
        table = pyarrow.csv.read_csv(path, convert_options=options).unify_dictionaries()
        codes = [table[side].combine_chunks().indices.to_numpy() for side in ["user", "item"]]
        return codes, table["value"].to_numpy()

    pyarrow.set_cpu_count(THREADS)
    return read, pyarrow.__version__


def by_pandas():
    import numpy
    import pandas
    import pyarrow

    def read(path):
        kinds = {"user": "category", "item": "category", "value": numpy.float32}
        frame = pandas.read_csv(path, engine="pyarrow", dtype=kinds)
        return [frame[side].cat.codes.to_numpy() for side in ["user", "item"]], frame["value"].to_numpy()

    pyarrow.set_cpu_count(THREADS)
    return read, pandas.__version__


PEERS = {"polars": by_polars, "polars-scan": by_polars_scan, "pyarrow": by_pyarrow, "pandas": by_pandas}


def read_as(peer, path):
    """What the child process of a peer does."""
    import scipy.sparse

    read, version = PEERS[peer]()
    start, used = time.perf_counter(), time.process_time()
    (users, items), values = read(path)
    matrix = scipy.sparse.coo_matrix((values, (users, items))).tocsr()
    took = time.perf_counter() - start, time.process_time() - used
    print(json.dumps({"took": took, "read": [len(values), *matrix.shape, matrix.nnz], "version": version}))


def run(command):
    """Returns both outputs of a command, its processor seconds and its peak memory."""
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{child.args} ended with {child.returncode}:\n{output}")
    return output, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def ours(binary, path):
    command = [binary, "train", "most-popular", path, "--dry-run", "--threads", THREADS]
    output, used, peak = run(command)
    number = lambda text: int(text.replace(",", ""))
    read = re.search(r"^read ([\d,]+) rows? from .* in (?:(\d+) min )?([\d.]+) s$", output, re.MULTILINE)
    found = re.search(r"^most-popular: ([\d,]+) users?, ([\d,]+) items?, ([\d,]+) interactions?$", output, re.MULTILINE)
    if not read or not found:
        raise SystemExit(f"{command} does not say what it read:\n{output}")
    seconds = 60 * int(read[2] or 0) + float(read[3])
    return {"took": (seconds, used), "read": [number(read[1]), *map(number, found.groups())], "peak": peak}


def theirs(peer, path):
    output, _, peak = run([sys.executable, __file__, "--read-as", peer, path])
    return json.loads(output.splitlines()[-1]) | {"peak": peak}


def finished(users, items, pairs):
    """Our dataset's size in KB; the texts of ids are counted as if all had the length of the longest."""
    texts = sum(n * len(f"u{n}") for n in [users, items])
    return round((20 * pairs + 8 * (users + items + 2) + 20 * (users + items) + texts) / 1024)


def compare(binary, work, rows, order, peers, turns):
    sides = {peer: lambda path, peer=peer: theirs(peer, path) for peer in peers}
    sides["recmill"] = lambda path: ours(binary, path)
    few, path = csv_file(work, FEW_ROWS, order), csv_file(work, rows, order)
    start = {side: read(few)["peak"] for side, read in sides.items()}
    runs = {side: [] for side in sides}
    for _ in range(turns):
        for side, read in sides.items():
            runs[side].append(read(path))
            if runs[side][-1]["read"] != runs[peers[0]][0]["read"]:
                raise SystemExit(f"{side} read {runs[side][-1]['read']}, {peers[0]} {runs[peers[0]][0]['read']}")
    read = runs["recmill"][0]["read"]
    dataset_kb = finished(*read[1:])
    took = {side: [run["took"] for run in runs[side]] for side in sides}
    peak = {side: max(run["peak"] for run in runs[side]) for side in sides}
    for peer in peers:
        row = medians("peer", took[peer], took["recmill"])
        yield {
            "order": order,
            **dict(zip(["rows", "users", "items", "pairs"], read)),
            "peer": f"{peer} {runs[peer][0]['version']}",
            "peer_rows_per_second": round(rows / row["peer_seconds"]),
            "recmill_rows_per_second": round(rows / row["recmill_seconds"]),
            **row,
            "peer_peak_kb": peak[peer],
            "recmill_peak_kb": peak["recmill"],
            "peer_start_kb": start[peer],
            "recmill_start_kb": start["recmill"],
            "finished_kb": dataset_kb,
            "peak_over_finished": round((peak["recmill"] - start["recmill"]) / dataset_kb, 3),
        }


def recorded(row):
    """Two rows of the CSV file: rows a second with processor seconds, and peak memory beside the finished dataset."""
    shape = {"order": row["order"], "rows": row["rows"], "peer_name": row["peer"]}
    used = ["peer_processor_seconds", "recmill_processor_seconds", "processor_ratio"]
    speed = [row["peer_rows_per_second"], row["recmill_rows_per_second"], "rows/s", row["ratio"]]
    memory = [row["peer_peak_kb"], row["recmill_peak_kb"], "KB", round(row["peer_peak_kb"] / row["recmill_peak_kb"], 3)]
    names = ["peer", "recmill", "unit", "ratio"]
    of_dataset = ["finished_kb", "peak_over_finished"]
    columns = dict.fromkeys([*names, *used, *of_dataset], "")
    yield {"what": "read csv"} | shape | columns | dict(zip(names, speed)) | {name: row[name] for name in used}
    yield {"what": "peak memory"} | shape | columns | dict(zip(names, memory)) | {name: row[name] for name in of_dataset}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--orders", default="by-user,shuffled")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/recmill-peers"))
    parser.add_argument("--binary", help="recmill, when it is built already")
    parser.add_argument("--record", type=pathlib.Path, help="append the rows to this CSV file")
    parser.add_argument("--write", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--read-as", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read_as:
        return read_as(*args.read_as)
    if args.write:
        return write_csv(args.write, args.work, args.rows, args.orders)

    binary = args.binary or built("--bin", "recmill")
    print(f"# {datetime.date.today()} {record.processor()}, {THREADS} threads", file=sys.stderr)
    rows = []
    for order in args.orders.split(","):
        for row in compare(binary, args.work, args.rows, order, args.peers.split(","), args.turns):
            rows.append(row)
            print(json.dumps(row), flush=True)
    if args.record:
        record.append(args.record, [line for row in rows for line in recorded(row)])


if __name__ == "__main__":
    main()
