"""What the databases cost a broadcaster: notifies beside each other in one run, and a start with many rows.

    bench_stores.py [--build FOLDER] [--rows N] [--only sqlite|postgres|rqlite]... [--json FILE]

Notifies without a subscriber, 128 B, authorization none, shipped defaults: each has to make sure that the
index is up to date, which is what the databases differ in. One and 64 are in flight. lonelypss runs on one
core; the load, PostgreSQL and the three nodes of rqlite share the other one, so figures are work done per
second of lonelypss' CPU, and those by the clock say little about a database with machines of its own. Each
is the median of three passes after a warm-up.

The start: from the command to its "ready", with so many exact subscriptions of 64 URLs stored; the CPU time that
lonelypss and the database's processes took for it; and what the memory of the process is above that of a start with
none, less the bytes of the topics.

Run by `./dev bench stores`. Exit status 1 when a figure misses its bar.
"""

import argparse
import contextlib
import json
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_http
from bench_http import OTHER_CORE, PASSES, SERVER_CORE, TICKS, Bench, Failed, Process, cpu_s_of

sys.path.insert(0, str(Path(__file__).parent.parent / "integration"))
import databases  # noqa: E402
import rqlite_cluster  # noqa: E402

PASS_CPU_S = 1.0
SHARE_BAR = 0.6  # of SQLite's, for PostgreSQL with 64 in flight
START_BAR_S, START_BAR_BYTES = 5.0, 250
URL = "http://127.0.0.1:9/r/%d"
URLS = 64
EXACTS = "httppubsub_subscription_exacts"


# ---- Databases: setup arguments, and so many rows ----


class Sqlite:
    name = "sqlite"

    def __init__(self):
        self.args = []

    def fill(self, folder, rows):
        with contextlib.closing(sqlite3.connect(folder / "subscriptions.db")) as db, db:
            db.execute("PRAGMA synchronous = OFF")
            db.executemany(f"INSERT INTO {EXACTS} (url, exact) VALUES (?, ?)",
                           ((URL % (i % URLS), b"tenant/%d/inbox" % i) for i in range(rows)))

    def pids(self):
        return []

    def close(self):
        pass


class Postgres:
    name = "postgres"

    def __init__(self):
        self.server = databases.Postgres()
        self.args = ["--db", "postgres", "--db-url", self.server.url]

    def fill(self, folder, rows):
        """Beside the triggers: nobody runs who would read the log."""
        url = URL.replace("%d", f"' || (i % {URLS})::text || '")
        sql = (f"SET session_replication_role = replica; INSERT INTO {EXACTS} (url, exact) "
               f"SELECT ('{url}')::bytea, ('tenant/' || i::text || '/inbox')::bytea "
               f"FROM generate_series(0, {rows - 1}) AS i")
        subprocess.run([self.server.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", self.server.url,
                        "-c", sql], check=True, stdin=subprocess.DEVNULL, timeout=600)

    def pids(self):
        return [self.server.process.pid]

    def close(self):
        self.server.close()


class Rqlite:
    name = "rqlite"

    def __init__(self):
        self.server = rqlite_cluster.Rqlite(3)
        self.args = ["--db", "rqlite", "--db-url", " ".join(self.server.urls)]

    def fill(self, folder, rows):
        step = 50000
        url = URL.replace("%d", f"' || (i % {URLS}) || '")
        for at in range(0, rows, step):
            self.server.leader().call("/db/execute", [[
                f"INSERT INTO {EXACTS} (url, exact) WITH RECURSIVE n(i) AS (SELECT {at} UNION ALL SELECT i + 1 "
                f"FROM n WHERE i + 1 < {min(at + step, rows)}) "
                f"SELECT '{url}', CAST('tenant/' || i || '/inbox' AS BLOB) FROM n"]], timeout=300)
        stored = self.server.query(f"SELECT count(*) FROM {EXACTS}")[0][0]
        if stored != rows:
            raise Failed(f"rqlite has {stored} rows, not {rows}")

    def pids(self):
        return [node.process.pid for node in self.server.nodes]

    def close(self):
        self.server.close()


DATABASES = [Sqlite, Postgres, Rqlite]


# ---- Measuring ----


def set_up(bench, database):
    """A folder whose lonelypss uses it."""
    folder = bench.new_folder()
    subprocess.run([bench.build / "src/broadcaster/lonelypss", "--setup", "--dir", folder,
                    "--to-broadcasters-auth", "none", "--to-subscribers-auth", "none", *database.args],
                   check=True, stdout=subprocess.DEVNULL)
    return folder


def start(bench, folder, core):
    return Process([bench.build / "src/broadcaster/lonelypss", "--config", folder / "lonelypss.ini",
                    "--listen", "127.0.0.1:0"], core, folder)


def measure_notifies(bench, database, in_flight):
    server = start(bench, set_up(bench, database), SERVER_CORE)

    def load(requests):
        return bench.load(server, requests, ["--notify", "tenant/#/inbox", "--topics", 1000,
                                             "--connections", in_flight])

    try:
        warm_up = 2000 if in_flight > 1 else 500
        _, cpu_s = load(warm_up)
        requests = int(PASS_CPU_S / max(cpu_s, 1 / TICKS) * warm_up)
        requests = max(warm_up, min(requests, 200000 if in_flight > 1 else 20000))
        passes = []
        for _ in range(PASSES):
            results, cpu_s = load(requests)
            passes.append({"rate": results["ok"] / cpu_s, "clock": results["ok"] / results["seconds"],
                           "p50_us": results["latency_us"]["p50"]})
    finally:
        server.stop()
    return {key: statistics.median(p[key] for p in passes) for key in passes[0]}


def resident_bytes(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def measure_start(bench, database, folder):
    others = sum(cpu_s_of(pid) for pid in database.pids())
    before = time.monotonic()
    server = start(bench, folder, os.sched_getaffinity(0) | SERVER_CORE | OTHER_CORE)
    try:
        return {"seconds": time.monotonic() - before, "cpu_s": server.cpu_s(),
                "database_cpu_s": sum(cpu_s_of(pid) for pid in database.pids()) - others,
                "resident": resident_bytes(server), "peak": server.peak_bytes()}
    finally:
        server.stop()


def measure_starts(bench, database, rows):
    folder = set_up(bench, database)
    empty = measure_start(bench, database, folder)
    database.fill(folder, rows)
    full = measure_start(bench, database, folder)
    strings = sum(len("tenant/%d/inbox" % i) for i in range(rows))
    full["bytes_each"] = (full["resident"] - empty["resident"] - strings) / rows
    full["peak_each"] = (full["peak"] - empty["peak"] - strings) / rows
    return full


# ---- The table ----

NOTIFY_COLUMNS = "{:<10} {:>9} {:>14} {:>12} {:>9} {:>11}  {}"
START_COLUMNS = "{:<10} {:>9} {:>8} {:>16} {:>12} {:>12}  {}"


def mark(good):
    return "pass" if good else "FAIL"


def print_notifies(name, in_flight, found, sqlite):
    share = found["rate"] / sqlite["rate"] if sqlite else None
    has_bar = name == "postgres" and in_flight == 64 and share is not None
    good = not has_bar or share >= SHARE_BAR
    print(NOTIFY_COLUMNS.format(name, in_flight, f"{found['rate']:,.0f}", f"{found['clock']:,.0f}",
                                f"{found['p50_us']:,.0f}", "-" if share is None else f"{share:.0%}",
                                f"{mark(good)} (bar {SHARE_BAR:.0%})" if has_bar else ""), flush=True)
    return good


def print_start(name, found):
    good = found["seconds"] < START_BAR_S and found["bytes_each"] < START_BAR_BYTES
    print(START_COLUMNS.format(name, f"{found['seconds']:.2f}", f"{found['cpu_s']:.2f}",
                               f"{found['database_cpu_s']:.2f}",
                               f"{found['bytes_each']:.0f}", f"{found['peak_each']:.0f}",
                               f"{mark(good)} (bar {START_BAR_S:.0f} s, {START_BAR_BYTES} B)"), flush=True)
    return good


def run(bench, opened, args):
    good, found = True, {}
    print(NOTIFY_COLUMNS.format("database", "in flight", "per core-second", "by the clock", "p50 us",
                                "of sqlite's", ""))
    for in_flight in (1, 64):
        for database in opened:
            result = measure_notifies(bench, database, in_flight)
            found[f"{database.name} {in_flight}"] = result
            good &= print_notifies(database.name, in_flight, result, found.get(f"sqlite {in_flight}"))
    print(f"\nStart with {args.rows:,} exact subscriptions:")
    print(START_COLUMNS.format("database", "seconds", "CPU s", "database CPU s", "bytes each", "peak each", ""))
    for database in opened:
        found[f"{database.name} start"] = measure_starts(bench, database, args.rows)
        good &= print_start(database.name, found[f"{database.name} start"])
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return good


def open_databases(stack, only):
    """Those that are installed, on the core of all that is not measured."""
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, OTHER_CORE)
    try:
        for kind in DATABASES:
            if only and kind.name not in only:
                continue
            try:
                database = kind()
            except (databases.Missing, rqlite_cluster.Missing) as e:
                print(f"{kind.name}: left out: {e}")
                continue
            stack.callback(database.close)
            yield database
    finally:
        os.sched_setaffinity(0, everywhere)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=Path, default=bench_http.ROOT / "build/bench")
    parser.add_argument("--rows", type=int, default=1000000)
    parser.add_argument("--only", action="append", choices=[kind.name for kind in DATABASES])
    parser.add_argument("--json", type=Path, help="everything measured, for further work")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lonely-bench-") as folder, contextlib.ExitStack() as stack:
        bench = Bench(args.build.resolve(), Path(folder))
        stack.callback(bench.sink.stop)
        opened = list(open_databases(stack, args.only))
        return 0 if run(bench, opened, args) else 1


if __name__ == "__main__":
    sys.exit(main())
