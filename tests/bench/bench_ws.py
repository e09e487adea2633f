"""How fast sessions are: websockets and raw TCP of our broadcaster, side by side with the reference
broadcaster, nats-server and redis-server, in one run.

    bench_ws.py [--build FOLDER] [--only WORD]... [--json FILE]

Every server runs on one core with shipped defaults; tests/bench/load.c, which is `lonelypsc bench` with
two more protocols, runs on the other and gives all of them the same publishers: at most 16 messages a write, at
most 128 under way, that is not confirmed or not delivered to every subscriber. Figures are work done per
second of CPU that the server took (user and system, all threads, from /proc), so that what else the machine
does matters little, with server and load before all other processes where the system lets us: a server that is
interrupted all the time finds less to do at once, and costs more. The best of PASSES, in which the servers take
turns (the reference, which takes long to start, has one), since what else runs can only add to it. Run by
`./dev bench ws`; how to read it: CONTRIBUTING.md. Exit status 1 when a figure misses its bar.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Optional

from bench_http import (OTHER_CORE, PATIENCE_S, REFERENCE, ROOT, SERVER_CORE, TICKS, Failed, Process)

PASSES = 3
CLIENT = Path(__file__).with_name("reference_client.py")
TOPIC = "lonely/bench"
MIB = 1 << 20


# ---- Servers ----


class Server(Process):
    """Ours says its addresses, a line each."""

    def __init__(self, args, folder, lines):
        super().__init__(args, SERVER_CORE, folder)
        self.folder = folder
        self.addresses = [self.address] + [
            self.process.stdout.readline().decode().split()[-1] for _ in range(lines - 1)]
        self.url = None
        self.load_args = []

    def memory_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


class Other(Server):
    """A server that says nothing: it is up when it takes a connection."""

    def __init__(self, args, folder, url, port):
        with open(folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                args, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, SERVER_CORE))
        self.folder, self.url, self.load_args = folder, url, []
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Failed(f"{args[0]} did not start") from None
                time.sleep(0.01)


def go_first(pid, priority=1, flags=0):
    """Before all other processes, where that is allowed; so do the threads that it starts."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setscheduler(int(task.name), os.SCHED_FIFO | flags, os.sched_param(priority))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Bench:
    def __init__(self, build, folder):
        self.build, self.folder, self.made = build, folder, 0

    def new_folder(self):
        self.made += 1
        folder = self.folder / str(self.made)
        folder.mkdir()
        return folder

    def setup(self, auth):
        """A folder with options, and with the secrets that both servers and all clients read."""
        folder = self.new_folder()
        subprocess.run([self.build / "src/broadcaster/lonelypss", "--setup", "--dir", folder,
                        "--to-broadcasters-auth", auth, "--to-subscribers-auth", auth],
                       check=True, stdout=subprocess.DEVNULL)
        return folder

    def start(self, who, row):
        folder = self.setup(row.auth)
        if who in ("ws", "tcp"):
            args = [self.build / "src/broadcaster/lonelypss", "--config", folder / "lonelypss.ini",
                    "--listen", "127.0.0.1:0", "--set", "tcp.listen=127.0.0.1:0"]
            for option in row.options:
                args += ["--set", option]
            server = Server(args, folder, 2)
            server.url = f"{who}://{server.addresses[who == 'tcp']}"
        elif who == "reference":
            server = Server([sys.executable, REFERENCE, row.auth], folder, 1)
            server.url = f"ws://{server.addresses[0]}"
        elif who == "nats":
            port = free_port()
            server = Other(["nats-server", "-a", "127.0.0.1", "-p", str(port)], folder,
                           f"nats://127.0.0.1:{port}", port)
        else:
            port = free_port()
            server = Other(["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "",
                            "--daemonize", "no", "--logfile", "redis.log"], folder,
                           f"redis://127.0.0.1:{port}", port)
        if row.auth != "none":
            server.load_args = ["--secrets", folder / "subscriber-secrets.json"]
        return server

    def start_load(self, server, args, program=None):
        """A load on the server; its "ready" line has come."""
        program = program or [self.build / "tests/bench/load"]
        process = subprocess.Popen(
            [str(a) for a in [*program, "--broadcaster", server.url, "--topic", TOPIC, *args, *server.load_args]],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, OTHER_CORE))
        go_first(process.pid)
        if not process.stdout.readline():
            raise Failed(f"load: {process.communicate()[1].strip()}")
        return process

    def load(self, server, args):
        """What it found, with what the server took meanwhile."""
        opening_s = server.cpu_s()
        go_first(server.process.pid)
        process = self.start_load(server, args)
        begun_s = server.cpu_s()
        line = process.stdout.readline()
        taken_s = server.cpu_s() - begun_s
        _, errors = process.communicate(timeout=PATIENCE_S)
        if process.returncode != 0:
            raise Failed(f"load: {errors.strip()}")
        found = json.loads(line)
        found["server_cpu_s"] = max(taken_s, 1 / TICKS)
        found["opening_cpu_s"] = max(begun_s - opening_s, 1 / TICKS)
        return found


# ---- Rows ----


ALL = ("ws", "tcp", "reference", "nats", "redis")
OURS = ("ws", "tcp")


@dataclasses.dataclass
class Row:
    name: str
    args: tuple
    value: Callable = lambda found: found["delivered"] / found["server_cpu_s"]
    servers: tuple = ALL
    auth: str = "none"
    options: tuple = ()  # of ours
    bar: Optional[float] = None
    aim: Optional[float] = None
    less: bool = False  # is better
    digits: int = 0
    check: Callable = lambda measured: True  # what else must hold, of all
    needs: str = ""  # in words


def fan_out(subscribers, size=128, seconds=0.7):
    return ("--subscribers", subscribers, "--size", size, "--seconds", seconds)


ROWS = [
    Row("10 subscribers, 128 B", fan_out(10), bar=400e3, aim=1.5e6),
    Row("100 subscribers, 128 B", fan_out(100), bar=500e3,
        check=lambda m: m["ws"] >= m["nats"] / 3, needs="a third of nats"),
    Row("10 subscribers, 16 KiB", fan_out(10, 16384), bar=60e3, aim=110e3),
    Row("one subscriber, 128 B", fan_out(1), bar=100e3, aim=300e3),
    Row("10 subscribers, 128 B, hmac", fan_out(10), servers=("ws", "tcp", "reference"), auth="hmac",
        bar=200e3, aim=400e3),
    Row("latency, ms", ("--rate", 1000, "--seconds", 1),
        value=lambda found: found["latency_us"]["p50"] / 1e3, bar=0.15, aim=0.08, less=True, digits=3,
        check=lambda m: m["ws"] <= m["reference"] / 6, needs="a sixth of the reference"),
    Row("256 MiB in 1 MiB parts, MB/s",
        ("--size", 256 * MIB, "--messages", 2, "--window", 1, "--seconds", 60),
        value=lambda found: found["delivered_bytes"] / 1e6 / found["server_cpu_s"], servers=OURS,
        options=("websocket.outgoing_max_ws_message_size=1048576",
                 "tcp.outgoing_max_message_size=1048576"), bar=250, aim=450),
]
PEAK_BAR = 64 * MIB
IDLE = 5000
IDLE_ROW = Row(f"{IDLE} idle, KiB each", ("--publishers", 0, "--subscribers", 0, "--seconds", 0),
               servers=("ws", "tcp", "reference", "nats", "redis"), bar=8, aim=3, less=True, digits=1)
IDLE_RATE = Row("idle, connects a second", (), bar=5000)
CLIENT_ROW = Row("clients: messages read", (), servers=("ws", "reference"),
                 options=("websocket.websocket_max_pending_sends=none",), bar=50)
CLIENT_MESSAGES = {"ws": 200000, "reference": 4000}


def measure(bench, row, found):
    """The servers take turns, so that what the machine does meanwhile strikes all of them."""
    for number_of_pass in range(PASSES):
        for who in row.servers:
            if who == "reference" and number_of_pass > 0:
                continue
            server = bench.start(who, row)
            try:
                one = bench.load(server, row.args)
                one["peak_bytes"] = server.peak_bytes()
                found.setdefault(who, []).append(one)
            finally:
                server.stop()


def best(found, value, less=False):
    pick = min if less else max
    return {who: pick(map(value, passes)) for who, passes in found.items()}


def measure_idle(bench, found):
    """Memory of an idle connection, and how many a second of CPU opens. The reference has fewer: it takes
    its time."""
    for who in IDLE_ROW.servers:
        count = IDLE if who != "reference" else IDLE // 10
        server = bench.start(who, IDLE_ROW)
        try:
            before = server.memory_bytes()
            opening_s = server.cpu_s()
            load = bench.start_load(server, (*IDLE_ROW.args, "--idle", count, "--seconds", 1))
            taken_s = max(server.cpu_s() - opening_s, 1 / TICKS)
            memory = server.memory_bytes() - before
            load.communicate(timeout=PATIENCE_S)
            found[who] = [{"kib": memory / 1024 / count, "rate": count / taken_s}]
        finally:
            server.stop()


def measure_client(bench, found):
    """Messages that a client reads in a second of its CPU, from our broadcaster."""
    for who in CLIENT_ROW.servers:
        server = bench.start("ws", CLIENT_ROW)
        count = CLIENT_MESSAGES[who]
        try:
            if who == "reference":
                client = subprocess.Popen(
                    [sys.executable, CLIENT, server.url.replace("ws", "http", 1), TOPIC, str(count),
                     server.folder / "subscriber-secrets.json"],
                    stdout=subprocess.PIPE, text=True,
                    preexec_fn=lambda: os.sched_setaffinity(0, OTHER_CORE))
                client.stdout.readline()
                time.sleep(0.5)  # it does not wait until its subscription is confirmed
                publisher = bench.start_load(server, ("--subscribers", 0, "--messages", count))
                result = json.loads(client.communicate(timeout=PATIENCE_S)[0])
                publisher.communicate(timeout=PATIENCE_S)
            else:
                client = bench.start_load(
                    server, ("--publishers", 0, "--expect", count, "--seconds", PATIENCE_S),
                    program=[bench.build / "src/cli/lonelypsc", "bench", "--library", "--json"])
                publisher = bench.start_load(server, ("--subscribers", 0, "--messages", count))
                result = json.loads(client.communicate(timeout=PATIENCE_S)[0])
                publisher.communicate(timeout=PATIENCE_S)
            result["rate"] = result["delivered"] / result["client_cpu_s"]
            found[who] = [result]
        finally:
            server.stop()


# ---- The table ----

COLUMNS = "{:<30}" + 5 * " {:>11}" + "  {:<34} {:>9}  {}"


def number(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def print_line(row, measured, bar=None, good=True, reached=None):
    """True when the row reaches its bar: ours by websocket, and whatever else it needs."""
    ours = measured["ws"]
    beats = (lambda a, b: a <= b) if row.less else (lambda a, b: a >= b)
    good = good and beats(ours, row.bar) and row.check(measured)
    reached = row.aim is not None and beats(ours, row.aim)
    text = number(row.bar, 2 if row.bar < 1 else 0) + (f" and {row.needs}" if row.needs else "")
    print(COLUMNS.format(row.name, *(number(measured.get(who), row.digits) for who in ALL),
                         bar or text, number(row.aim, 2 if (row.aim or 1) < 1 else 0),
                         "FAIL" if not good else "aim" if reached else "pass"), flush=True)
    return good


def run_row(bench, row, found):
    measure(bench, row, found)
    measured = best(found, row.value, row.less)
    peak = max(one["peak_bytes"] for who in OURS for one in found[who])
    if row.args[0] == "--size":
        return print_line(row, measured, f"{row.bar} and peak {peak / MIB:.0f} under "
                          f"{PEAK_BAR // MIB} MiB", peak < PEAK_BAR)
    good = print_line(row, measured)
    if "tcp" in measured and not row.less and measured["tcp"] < measured["ws"]:
        print(f"{'':4}raw TCP {measured['tcp'] / measured['ws']:.2f} of websocket", flush=True)
    return good


def run_idle(bench, found):
    measure_idle(bench, found)
    good = print_line(IDLE_ROW, best(found, lambda one: one["kib"]))
    return print_line(IDLE_RATE, best(found, lambda one: one["rate"])) and good


def run_client(bench, found):
    measure_client(bench, found)
    measured = best(found, lambda one: one["rate"])
    factor = measured["ws"] / measured["reference"]
    good = factor >= CLIENT_ROW.bar
    print(COLUMNS.format("client: messages read", *(number(measured.get(who)) for who in ALL),
                         f"{CLIENT_ROW.bar} times the reference: {factor:.0f}", "-",
                         "pass" if good else "FAIL"), flush=True)
    return good


def run(bench, args):
    print(f"Machine: {platform.machine()}, {os.cpu_count()} cores, {platform.release()}; load "
          f"{' '.join(f'{x:.1f}' for x in os.getloadavg())}. Server on core {min(SERVER_CORE)}, "
          f"load on core {min(OTHER_CORE)}.")
    for command in (["nats-server", "--version"], ["redis-server", "--version"]):
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    print("Publishers: 16 messages a write, 128 under way. Work per second of the server's CPU:\n")
    print(COLUMNS.format("what", "websocket", "raw TCP", "reference", "nats", "redis", "bar", "aim", ""),
          flush=True)
    parts = [(row.name, lambda found, row=row: run_row(bench, row, found)) for row in ROWS]
    parts += [(IDLE_ROW.name, lambda found: run_idle(bench, found)),
              (CLIENT_ROW.name, lambda found: run_client(bench, found))]
    everything, good = {}, True
    for name, part in parts:
        if args.only and not any(word in name for word in args.only):
            continue
        try:
            good &= part(everything.setdefault(name, {}))
        except Failed as failure:
            print(f"{name:<30} FAILED: {failure}", flush=True)
            good = False
    if args.json:
        args.json.write_text(json.dumps(everything, indent=1))
    print(f"\nLoad at the end: {' '.join(f'{x:.1f}' for x in os.getloadavg())}.")
    return good


def main():
    # What is measured begins when this says so; what it starts is nothing special.
    go_first(os.getpid(), 2, os.SCHED_RESET_ON_FORK)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/bench")
    parser.add_argument("--only", action="append", help="rows whose name contains this")
    parser.add_argument("--json", type=Path, help="everything measured, for further work")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lonely-bench-") as folder, contextlib.suppress(KeyboardInterrupt):
        return 0 if run(Bench(args.build.resolve(), Path(folder)), args) else 1
    return 1


if __name__ == "__main__":
    sys.exit(main())
