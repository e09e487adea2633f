"""How fast libtinyproto and tpft are, side by side with the Python package and a bare loop, in one run.

    bench_tinyproto.py [--build FOLDER] [--python FOLDER] [--only WORD]...

Each row starts our server, a server made of the Python package (FOLDER: where it is installed) and
tiny_bare: recv and send, for files write with fsync or read, for small messages the system calls that the
protocol asks for, and nothing else. They run on one core, the load (tiny_load, or our tpft) on the other. Figures are work done per
second of CPU that the server took (user and system, all threads). Ours and the bare loop: the median of
several passes, one of each in turn, after a warm-up. Run by `./dev bench tinyproto`. Exit status 1 when a
figure misses its bar.
"""

import argparse
import contextlib
import mmap
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_http import OTHER_CORE, ROOT, SERVER_CORE, Failed, Process, number

PASSES = 3
PATIENCE_S = 600
MIB, GIB = 1 << 20, 1 << 30
SMALL_BAR, LARGE_BAR = 20, 0.8  # times the Python server; of the bare loop
PYTHON_SERVER = Path(__file__).with_name("tinyproto_server.py")


def cpu_ns(process):
    """Of all threads; those of the pool live as long as the process."""
    total = 0
    for task in Path(f"/proc/{process.process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((task / "schedstat").read_text().split()[0])
    return total


class Bench:
    def __init__(self, build, python, folder):
        self.build, self.folder = build, folder
        self.python_path = python
        self.echo_program = build / "src/tinyproto/programs/tinyproto-echo-server"
        self.tpft = build / "src/tpft/tpft"
        self.bare = build / "tests/bench/tiny_bare"
        self.load_program = build / "tests/bench/tiny_load"
        self.source = folder / "source"

    def start(self, *args):
        return Process(args, SERVER_CORE, self.folder)

    def python(self, kind):
        return self.start("env", f"PYTHONPATH={self.python_path}", sys.executable,
                          PYTHON_SERVER, kind)

    def run(self, server, *args):
        """CPU seconds of the server, and seconds by the clock."""
        before, began = self.cpu_s(server), time.monotonic()
        done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=PATIENCE_S,
                              cwd=self.folder,
                              preexec_fn=lambda: os.sched_setaffinity(0, OTHER_CORE))
        if done.returncode != 0:
            raise Failed(f"{args[0]}: {done.stderr}")
        seconds = time.monotonic() - began
        return self.cpu_s(server) - before, seconds

    @staticmethod
    def cpu_s(server):
        """By threads, in nanoseconds; of one that starts a thread a connection, in ticks: these end."""
        return cpu_ns(server) / 1e9 if server.keeps_threads else server.cpu_s()

    def echo(self, server, mode, connections, messages, size):
        return self.run(server, self.load_program, mode, server.address, connections, messages, size)

    def transfer(self, server, *args):
        """All begin alike: without a file of the run before, and with the memory for theirs at hand. What was free
        for some seconds a virtual machine may have given back; to touch it again takes longer than all the rest."""
        for name in ("uploaded", "downloaded"):
            (self.folder / name).unlink(missing_ok=True)
        with mmap.mmap(-1, GIB + GIB // 4) as memory:
            for _ in range(len(memory) // MIB):
                memory.write(bytes(MIB))
        return self.run(server, *args)

    def upload(self, server):
        return self.transfer(server, self.tpft, self.source, f"{server.address}:uploaded")

    def download(self, server):
        return self.transfer(server, self.tpft, f"{server.address}:source", self.folder / "downloaded")


def median(runs, work):
    return (statistics.median(work / cpu for cpu, _ in runs),
            statistics.median(work / clock for _, clock in runs))


def measure(bench, servers, passes=PASSES):
    """servers: name -> (process, function of it, work, keeps_threads). Their rates, then they end."""
    try:
        for process, _, _, keeps in servers.values():
            process.keeps_threads = keeps
        found = {name: [] for name in servers}
        for turn in range(passes + 1):
            for name, (process, run, _, _) in servers.items():
                if name == "python" and turn > 1:
                    continue
                result = run(process)
                if turn > 0:
                    found[name].append(result)
        return {name: median(found[name], servers[name][2]) for name in servers}
    finally:
        for process, *_ in servers.values():
            process.stop()


# ---- Rows ----


def small_messages(bench):
    ours, theirs = 20000, 5000
    return measure(bench, {
        "ours": (bench.start(bench.echo_program, "--listen", "127.0.0.1:0"),
                 lambda s: bench.echo(s, "echo", 16, ours, 128), ours, True),
        "bare": (bench.start(bench.bare, "frames", 128),
                 lambda s: bench.echo(s, "echo", 16, ours, 128), ours, True),
        "python": (bench.python("echo"), lambda s: bench.echo(s, "echo", 16, theirs, 128), theirs, False),
    }, 3)


def large_messages(bench):
    ours, theirs = 300, 100
    return measure(bench, {
        "ours": (bench.start(bench.echo_program, "--listen", "127.0.0.1:0"),
                 lambda s: bench.echo(s, "echo", 1, ours, MIB), ours * MIB / 1e6, True),
        "bare": (bench.start(bench.bare, "echo", MIB),
                 lambda s: bench.echo(s, "mirror", 1, ours, MIB), ours * MIB / 1e6, True),
        "python": (bench.python("echo"), lambda s: bench.echo(s, "echo", 1, theirs, MIB),
                   theirs * MIB / 1e6, False),
    })


def upload(bench):
    return measure(bench, {
        "ours": (bench.start(bench.tpft, "-l", "127.0.0.1:0", "--root", bench.folder), bench.upload,
                 GIB / 1e6, True),
        "bare": (bench.start(bench.bare, "receive", bench.folder / "uploaded", GIB),
                 lambda s: bench.transfer(s, bench.load_program, "put", s.address, GIB), GIB / 1e6, True),
        "bare without a file": (bench.start(bench.bare, "swallow", GIB),
                                lambda s: bench.transfer(s, bench.load_program, "put", s.address, GIB),
                                GIB / 1e6, True),
        "python": (bench.python("files"), bench.upload, GIB / 1e6, False),
    })


def download(bench):
    return measure(bench, {
        "ours": (bench.start(bench.tpft, "-l", "127.0.0.1:0", "--root", bench.folder), bench.download,
                 GIB / 1e6, True),
        "bare": (bench.start(bench.bare, "send", bench.source),
                 lambda s: bench.transfer(s, bench.load_program, "keep", s.address, bench.folder / "downloaded",
                                          GIB), GIB / 1e6, True),
        "bare to no file": (bench.start(bench.bare, "send", bench.source),
                            lambda s: bench.transfer(s, bench.load_program, "get", s.address, GIB),
                            GIB / 1e6, True),
        "python": (bench.python("files"), bench.download, GIB / 1e6, False),
    })


ROWS = [
    ("echo of 128 B, 16 connections: messages", small_messages),
    ("echo of 1 MiB: MB", large_messages),
    ("tpft: 1 GiB to the server: MB", upload),
    ("tpft: 1 GiB from the server: MB", download),
]

# ---- The table ----

COLUMNS = "{:<40} {:>10} {:>10} {:>10} {:>9} {:>9}  {:<10} {}"


def print_row(name, found):
    """True when the row reaches its bar."""
    ours, python = found["ours"][0], found["python"][0]
    bare = found["bare"][0]
    if "messages" in name:
        good, bar = ours >= SMALL_BAR * python, f"x {SMALL_BAR}"
    else:
        good, bar = ours >= LARGE_BAR * bare, f"{LARGE_BAR:.0%}"
    print(COLUMNS.format(name, number(ours), number(python), number(bare), f"x {ours / python:.1f}",
                         f"{ours / bare:.0%}", bar, "pass" if good else "FAIL"))
    clocks = ", ".join(f"{who} {number(rates[1])}" for who, rates in found.items())
    print(f"    by the clock: {clocks}", flush=True)
    for who in found.keys() - {"ours", "bare", "python"}:
        print(f"    {who}: {number(found[who][0])}", flush=True)
    return good


def print_head(python):
    print(f"Machine: {platform.machine()}, {os.cpu_count()} cores, {platform.release()}; load "
          f"{' '.join(f'{x:.1f}' for x in os.getloadavg())}. Server on core {min(SERVER_CORE)}, load on "
          f"core {min(OTHER_CORE)}.")
    print(f"Python: {platform.python_version()}, {python.name}. Work per second of the server's CPU:\n")
    print(COLUMNS.format("what", "ours", "Python", "bare loop", "Python", "bare", "bar", ""), flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/bench")
    parser.add_argument("--python", type=Path, default=ROOT / "build/peers/tinyproto-3.0")
    parser.add_argument("--only", action="append", help="rows whose name contains this")
    return parser.parse_args()


def main():
    args = parse_arguments()
    good = True
    print_head(args.python)
    with tempfile.TemporaryDirectory(prefix="tinyproto-bench-") as folder:
        bench = Bench(args.build.resolve(), args.python.resolve(), Path(folder))
        with open("/dev/urandom", "rb") as noise, open(bench.source, "wb") as file:
            block = noise.read(MIB)
            for _ in range(GIB // MIB):
                file.write(block)
        for name, row in ROWS:
            if args.only and not any(word in name for word in args.only):
                continue
            try:
                good &= print_row(name, row(bench))
            except Failed as failure:
                print(f"{name:<40} FAILED: {failure}", flush=True)
                good = False
            for leftover in ("uploaded", "downloaded"):
                (bench.folder / leftover).unlink(missing_ok=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
