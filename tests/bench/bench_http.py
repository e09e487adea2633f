"""How fast the HTTP broadcaster is, side by side with the reference, in one run.

    bench_http.py [--build FOLDER] [--only WORD]... [--json FILE]

Each row starts our lonelypss, then the reference, with shipped defaults and a database of their own on
one core; http_load and http_sink run on the other. Figures are work done per second of CPU that the
server took (user and system, all threads, from /proc), so that what else the machine does matters
little. Ours: the median of three passes, each after a warm-up; of the largest message, which is also
compared with a bare loop, the best of six. Run by `./dev bench`; how to read it: CONTRIBUTING.md. Exit
status 1 when a figure misses its bar.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import re
import shutil
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Optional

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/integration"))
import bodies  # noqa: E402  (the stateless API, written from doc/protocol/http.md)

REFERENCE = Path(__file__).with_name("reference_server.py")
PATIENCE_S = 120
TICKS = os.sysconf("SC_CLK_TCK")
PASSES = 3
PASS_CPU_S = 1.0  # wanted; from it and the warm-up comes the number of requests of a pass
REFERENCE_CPU_S = 2.0
SINK_URLS = 64
GIB = 1 << 30


class Failed(Exception):
    pass


# ---- Processes ----


def cores():
    """Of the server, and of everything else."""
    allowed = sorted(os.sched_getaffinity(0))
    return {allowed[0]}, {allowed[1] if len(allowed) > 1 else allowed[0]}


SERVER_CORE, OTHER_CORE = cores()


def cpu_s_of(pid):
    """User and system time of a process: all threads, children that live and those that have ended."""
    total, pids = 0, [pid]
    while pids:
        pid = pids.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
            for task in Path(f"/proc/{pid}/task").iterdir():
                pids += map(int, (task / "children").read_text().split())
    return total / TICKS


class Process:
    """A child on a core that says "ready ... ADDRESS" on its first line."""

    def __init__(self, args, core, folder):
        self.load_args = []  # what http_load must be told beside the row's own
        with open(folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [str(a) for a in args], cwd=folder, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, core))
        line = self.process.stdout.readline().decode().split()
        if line[:1] != ["ready"]:
            self.process.kill()
            self.process.wait()
            raise Failed(f"{args[0]} did not start: {(folder / 'log').read_text()[-2000:]}")
        self.address = line[-1]

    def stop(self):
        """What else it printed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.communicate(timeout=PATIENCE_S)[0].decode()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed("a process did not end") from None

    def cpu_s(self):
        return cpu_s_of(self.process.pid)

    def peak_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


class Bench:
    """The programs, and the databases that rows start from."""

    def __init__(self, build, folder):
        self.build, self.folder = build, folder
        self.load_program = build / "tests/bench/http_load"
        self.sink = Process([build / "tests/bench/http_sink"], OTHER_CORE, folder)
        self.made = 0

    def sink_url(self, n):
        return f"http://{self.sink.address}/r/{n}"

    def new_folder(self):
        self.made += 1
        folder = self.folder / str(self.made)
        folder.mkdir()
        return folder

    def forget(self):
        """Removes what the rows so far have left."""
        for n in range(1, self.made + 1):
            shutil.rmtree(self.folder / str(n), ignore_errors=True)

    def database(self, exacts, globs):
        """A file with the reference's tables and (url, key) rows; ours adds what it needs."""
        path = self.new_folder() / "subscriptions.db"
        subprocess.run([sys.executable, REFERENCE, "tables", path], check=True)
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA synchronous = OFF")
            for name, rows in (("exact", exacts), ("glob", globs)):
                db.executemany(f"INSERT INTO httppubsub_subscription_{name}s (url, {name}) "
                               "VALUES (?, ?)", rows)
        return path

    def setup(self, folder, auth):
        """Has lonelypss write its options, and the secrets that both servers read."""
        subprocess.run([self.build / "src/broadcaster/lonelypss", "--setup", "--dir", folder,
                        "--to-broadcasters-auth", auth, "--to-subscribers-auth", auth],
                       check=True, stdout=subprocess.DEVNULL)

    def start(self, ours, database, auth="none"):
        """A server on a copy of the database; the load on it is signed when `auth` is hmac."""
        folder = self.new_folder()
        if database:
            shutil.copy(database, folder / "subscriptions.db")
        self.setup(folder, auth)
        if ours:
            server = Process([self.build / "src/broadcaster/lonelypss", "--config",
                              folder / "lonelypss.ini", "--listen", "127.0.0.1:0"],
                             SERVER_CORE, folder)
        else:
            server = Process([sys.executable, REFERENCE, auth], SERVER_CORE, folder)
        if auth == "hmac":
            secrets = json.loads((folder / "broadcaster-secrets.json").read_text())
            server.load_args = ["--hmac", secrets["to-broadcaster"]["secret"]]
        return server

    def load(self, server, requests, args):
        """Runs http_load; its results and the CPU time that the server took meanwhile."""
        args = [*args, *server.load_args]
        before = server.cpu_s()
        done = subprocess.run(
            [self.load_program, "--to", server.address, "--requests", str(requests), "--seconds",
             str(PATIENCE_S), *map(str, args)],
            preexec_fn=lambda: os.sched_setaffinity(0, OTHER_CORE), capture_output=True, text=True,
            timeout=2 * PATIENCE_S)
        if done.returncode != 0:
            raise Failed(f"http_load: {done.stderr}{done.stdout}")
        return json.loads(done.stdout), server.cpu_s() - before


# ---- Rows ----


@dataclasses.dataclass
class Row:
    name: str
    args: Callable  # (bench, pass, requests) -> arguments of http_load
    work: Callable  # (results of http_load) -> what is counted
    exacts: Callable = lambda bench: ()
    globs: Callable = lambda bench: ()
    notified: int = 0  # by each request, so that nothing else is measured
    warm_up: int = 2000
    most: int = 200000  # requests a pass
    bar: Optional[float] = None  # a core-second
    factor: Optional[float] = None  # times the reference
    auth: str = "none"  # both ways
    aim: Optional[float] = None
    base: Optional[str] = None  # name of the row to which the next two compare
    slower_bar: Optional[float] = None
    slower_aim: Optional[float] = None


def requests_of(results):
    return results["ok"]


def posts_of(results):
    return results["notified"]


def notify(topics=1000):
    return lambda bench, number, requests: ["--notify", "tenant/#/inbox", "--topics", topics]


def stored(topics, each=1):
    """`each` subscribers of each topic; the URLs take turns."""
    return lambda bench: (
        (bench.sink_url((topic * each + i) % SINK_URLS), b"tenant/%d/inbox" % topic)
        for topic in range(topics) for i in range(each))


def globs(count, pattern):
    return lambda bench: ((bench.sink_url(n % SINK_URLS), pattern % n) for n in range(count))


def subscribe(bench, number, requests):
    return ["--subscribe", f"pass/{number}/#", "--url", bench.sink_url(0)]


SET_EXACTS, SET_GLOBS = 1000, 100


def set_bodies(bench, number, requests):
    """A file of SETs: each for a URL that has nothing yet."""
    exacts = sorted(f"building/{n}/temperature" for n in range(SET_EXACTS))
    patterns = sorted(f"building/{n}/*" for n in range(SET_GLOBS))
    path = bench.new_folder() / "bodies"
    with open(path, "wb") as file:
        for n in range(requests):
            body = bodies.set_subscriptions(bench.sink_url(f"{number}/{n}"), exacts, patterns)
            file.write(struct.pack("<I", len(body)) + body)
    return ["--bodies", path, "--path", bodies.SET, "--connections", "8"]


NO_SUBSCRIBER, ONE_WEBHOOK = "notify, no subscriber, 128 B", "one webhook each"

ROWS = [
    Row(NO_SUBSCRIBER, notify(), requests_of, bar=60000, factor=12, aim=110000),
    Row(ONE_WEBHOOK, notify(), requests_of, exacts=stored(1000), notified=1, bar=20000, factor=10,
        aim=40000),
    Row("10 webhooks each: posts", notify(), posts_of, exacts=stored(1000, 10), notified=10,
        warm_up=500, bar=35000, factor=10, aim=60000),
    Row("subscribe exact, durable", subscribe, requests_of, bar=4000, factor=6, aim=15000),
    Row("one webhook each, 1,000,000 exact stored", notify(1000000), requests_of,
        exacts=stored(1000000), notified=1, base=ONE_WEBHOOK, slower_bar=1.2, slower_aim=1.0),
    Row("no subscriber, 100,000 globs tenant/N/*/x", notify(100000), requests_of, warm_up=200,
        globs=globs(100000, "tenant/%d/*/x"), base=NO_SUBSCRIBER, slower_bar=1.5, slower_aim=1.1),
    Row("no subscriber, 10,000 globs */N/outbox", notify(10000), requests_of, warm_up=200,
        globs=globs(10000, "*/%d/outbox"), base=NO_SUBSCRIBER, slower_bar=3, slower_aim=1.5),
    Row("SET of 1,000 exact and 100 globs: rows", set_bodies,
        lambda results: results["ok"] * (SET_EXACTS + SET_GLOBS), warm_up=5, most=500, bar=20000,
        aim=150000),
    Row("notify, no subscriber, hmac both ways", notify(), requests_of, auth="hmac", bar=30000,
        aim=60000),
]


def check_notified(row, results):
    if results["notified"] != row.notified * results["ok"]:
        raise Failed(f"{results['notified']} notified by {results['ok']} requests")


def measure_pass(bench, row, server, number, requests):
    results, cpu_s = bench.load(server, requests, row.args(bench, number, requests))
    check_notified(row, results)
    return {"work": row.work(results), "cpu_s": cpu_s, **results}


def measure(bench, row, ours, database):
    """Warm-up, which also says how many requests a pass may have, and the passes."""
    server = bench.start(ours, database, row.auth)
    try:
        warm_up = row.warm_up if ours else max(row.warm_up // 10, 2)
        first = measure_pass(bench, row, server, "warm", warm_up)
        each_s = max(first["cpu_s"], 1 / TICKS) / warm_up
        requests = min(row.most, max(warm_up, int((PASS_CPU_S if ours else REFERENCE_CPU_S) / each_s)))
        passes = [measure_pass(bench, row, server, n, requests)
                  for n in range(PASSES if ours else 1)]
    finally:
        server.stop()
    rates = [p["work"] / p["cpu_s"] for p in passes]
    return {"rate": statistics.median(rates), "rates": rates, "passes": passes}


def measure_row(bench, row):
    exacts, patterns = row.exacts(bench), row.globs(bench)
    database = bench.database(exacts, patterns) if exacts or patterns else None
    try:
        return {"ours": measure(bench, row, True, database),
                "reference": measure(bench, row, False, database)}
    finally:
        bench.forget()


BIG = "1 GiB by HTTP to one webhook: MB/s"
BIG_BAR, BIG_MEMORY_BAR = 400, 64 << 20
BIG_PASSES = 6


def start_bare(bench):
    """What any broadcaster must do with the bytes, and nothing else."""
    return Process([bench.build / "tests/bench/http_bare", bench.sink.address.rpartition(":")[2]],
                   SERVER_CORE, bench.new_folder())


def measure_big(bench):
    """The body is spooled: memory must not grow with it. The best pass counts: on a virtual machine whose
    free memory goes back to its host, filling the page cache costs up to ten times as much as elsewhere,
    and how much differs from pass to pass. Those of a bare loop take turns with ours, and meet the same."""
    database = bench.database([(bench.sink_url(0), b"big")], ())
    servers = {"ours": bench.start(True, database), "bare": start_bare(bench)}
    passes = {name: [] for name in servers}
    try:
        for _ in range(BIG_PASSES):
            for name, server in servers.items():
                results, cpu_s = bench.load(server, 1, ["--notify", "big", "--message-bytes", GIB])
                if results["notified"] != 1:
                    raise Failed("1 GiB was not delivered")
                passes[name].append({"rate": GIB / 1e6 / cpu_s, "wall_rate": GIB / 1e6 / results["seconds"]})
        found = {name: {key: max(p[key] for p in some) for key in some[0]} for name, some in passes.items()}
        return {**found, "passes": passes, "peak_bytes": servers["ours"].peak_bytes()}
    finally:
        for server in servers.values():
            server.stop()
        bench.forget()


# ---- The table ----

COLUMNS = "{:<42} {:>11} {:>11} {:>9}  {:<22} {:>9}  {}"


def number(value):
    return "-" if value is None else f"{value:,.0f}"


def print_line(row, found, base):
    """True when the row reaches its bar."""
    ours, reference = found["ours"]["rate"], found["reference"]["rate"]
    ratio = ours / reference
    if row.base and base is None:
        measured, bar, aim, good, reached = "?", "needs its base", "", True, False
    elif row.base:
        slower = base / ours
        measured, bar = f"{slower:.2f} slow", f"at most {row.slower_bar} slower"
        aim, good, reached = f"{row.slower_aim}", slower <= row.slower_bar, slower <= row.slower_aim
    else:
        measured, aim = f"x {ratio:.1f}", number(row.aim)
        bar = number(row.bar) + (f" and x {row.factor:.0f}" if row.factor else "")
        good = ours >= row.bar and ratio >= (row.factor or 0)
        reached = ours >= row.aim
    mark = "FAIL" if not good else "aim" if reached else "pass"
    print(COLUMNS.format(row.name, number(ours), number(reference), measured, bar, aim, mark),
          flush=True)
    return good


def print_big(found):
    ours, bare, peak = found["ours"], found["bare"], found["peak_bytes"]
    good = ours["rate"] >= BIG_BAR and peak < BIG_MEMORY_BAR
    print(COLUMNS.format(BIG, number(ours["rate"]), "-", f"{peak / 2**20:.0f} MiB",
                         f"{BIG_BAR} and under {BIG_MEMORY_BAR >> 20} MiB", "SHA-512",
                         "pass" if good else "FAIL"), flush=True)
    print(f"{'':4}{number(ours['wall_rate'])} MB/s by the clock; a bare loop that receives, hashes, writes and "
          f"sends the file: {number(bare['rate'])}, {number(bare['wall_rate'])} by the clock", flush=True)
    return good


def defaults(bench):
    """The options in force: those of the file that --setup writes."""
    folder = bench.new_folder()
    bench.setup(folder, "none")
    section, found = "", []
    for line in (folder / "lonelypss.ini").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif match := re.fullmatch(r"#?(\w+) = (.*)", line):
            found.append(f"{section}.{match[1]}={match[2]}")
    return found


def print_head(bench):
    print(f"Machine: {platform.machine()}, {os.cpu_count()} cores, {platform.release()}; load "
          f"{' '.join(f'{x:.1f}' for x in os.getloadavg())}. Server on core {min(SERVER_CORE)}, "
          f"load and sink on core {min(OTHER_CORE)}.")
    print("Ours: " + " ".join(defaults(bench)))
    print("Reference: uvicorn, 1 worker, uvloop, httptools, no access log; its template's settings;"
          " SQLite " + sqlite3.sqlite_version + ".")
    print("64 connections, kept alive. Work per second of the server's CPU:\n")
    print(COLUMNS.format("what", "ours", "reference", "measured", "bar", "aim", ""), flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/bench")
    parser.add_argument("--only", action="append", help="rows whose name contains this")
    parser.add_argument("--json", type=Path, help="everything measured, for further work")
    return parser.parse_args()


def run(bench, args):
    """Measures and prints row by row; true when all reach their bars."""
    wanted = [row for row in ROWS if not args.only or any(word in row.name for word in args.only)]
    found, good = {}, True
    print_head(bench)
    for row in wanted:
        try:
            found[row.name] = measure_row(bench, row)
            base = found.get(row.base)
            good &= print_line(row, found[row.name], base and base["ours"]["rate"])
        except Failed as failure:
            print(f"{row.name:<42} FAILED: {failure}", flush=True)
            good = False
    if not args.only or any(word in BIG for word in args.only):
        try:
            found[BIG] = measure_big(bench)
            good &= print_big(found[BIG])
        except Failed as failure:
            print(f"{BIG:<42} FAILED: {failure}", flush=True)
            good = False
    sink = json.loads(bench.sink.stop())
    print(f"\nLoad at the end: {' '.join(f'{x:.1f}' for x in os.getloadavg())}; "
          f"{sink['receives']:,} posts received.")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return good and sink["bad"] == 0


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="lonely-bench-") as folder:
        bench = Bench(args.build.resolve(), Path(folder))
        try:
            return 0 if run(bench, args) else 1
        finally:
            if bench.sink.process.poll() is None:
                bench.sink.stop()


if __name__ == "__main__":
    sys.exit(main())
