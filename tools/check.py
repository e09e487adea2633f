"""Runs the rings of tests and sums their results. Called by `./dev check`.

Each ring leaves a JUnit file; the last line printed is "N passed, N failed, N skipped" over all of
them. A ring that cannot be built counts as one failure, so that the others are still seen.
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
PYTEST = [str(BUILD / "venv/bin/python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]

FUZZ_SECONDS = 3  # a target
COMMAND_SECONDS = 3 * 3600  # for a build or a ring: many times what they need, on slow machines too
GRACE_SECONDS = 5  # for a ring that is told to end

# name of the build: compiler, meson options, environment of its programs
SANITIZER_ENV = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:allocator_may_return_null=1",
}
BUILDS = {
    "gcc": ("gcc", ["-Dbuildtype=debugoptimized"], {}),
    "asan": (
        "clang",
        ["-Db_sanitize=address,undefined", "-Db_lundef=false", "-Dfuzzers=true"],
        SANITIZER_ENV,
    ),
    "tsan": ("gcc", ["-Db_sanitize=thread", "-Db_lundef=false"], SANITIZER_ENV),
}


RINGS = {
    # name: what it is, and the builds that it tests
    "sources": ("format, include paths, man pages", ()),
    "unit": ("all that meson runs: unit tests, vectors, contracts of databases, corpora of fuzzers",
             ("gcc", "asan", "tsan")),
    "fuzz": (f"each fuzzer for {FUZZ_SECONDS} s", ("asan",)),
    "integration": ("the programs as processes, with the reference ones", ("gcc", "asan")),
}


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.troubles = []
        self.lock = threading.Lock()

    def add(self, ring, passed, failed, skipped, troubles=()):
        with self.lock:
            self.passed += passed
            self.failed += failed
            self.skipped += skipped
            self.troubles += [f"{ring}: {trouble}" for trouble in troubles]
            print(f"   {ring}: {passed} passed, {failed} failed, {skipped} skipped", flush=True)

    def add_step(self, ring, ok, trouble="see above"):
        self.add(ring, int(ok), int(not ok), 0, [] if ok else [trouble])

    def add_junit(self, ring, path, exit_code, bad_programs=()):
        """Counts the cases of a JUnit file; a failed run without a failed case is a failure, and so is
        each program that ended badly without one."""
        if not path.exists():
            self.add_step(ring, False, "no results")
            return
        try:
            cases = list(ElementTree.parse(path).getroot().iter("testcase"))
        except ElementTree.ParseError as error:
            self.add_step(ring, False, f"{path.name} cannot be read: {error}")
            return
        bad = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
        skipped = [c for c in cases if c.find("skipped") is not None]
        failed = len(bad)
        troubles = [f"{c.get('classname')} {c.get('name')}" for c in bad]
        named = [c.get(key, "") for c in bad for key in ("classname", "name")]
        for name, result in bad_programs:
            if not any(text.endswith(name) for text in named):
                failed += 1
                troubles.append(f"{name}: {result}, without a case that failed")
        if exit_code != 0 and not failed:
            failed, troubles = 1, [f"exit status {exit_code}"]
        if not cases:
            failed, troubles = 1, ["no test ran"]
        self.add(ring, len(cases) - len(bad) - len(skipped), failed, len(skipped), troubles)


def bad_programs(path):
    """Names and results of the test programs that did not end well, from meson's testlog.json."""
    try:
        entries = [json.loads(line) for line in path.read_text().splitlines()]
    except (FileNotFoundError, json.JSONDecodeError):
        return []  # the JUnit file is told of
    return [(e["name"], e["result"]) for e in entries
            if e["result"] not in ("OK", "SKIP", "EXPECTEDFAIL")]


# In the environment of all that a command of run() starts: "/PID.N", behind that of the check in which
# this one runs.
MARK = "LONELY_CHECK_COMMAND"
NUMBERS = itertools.count()
RUNNING = {}  # process of run(), of all threads: its mark


def marked(mark):
    """Processes of that command, whichever session they are in."""
    wanted = re.compile(rb"(^|\0)" + re.escape(f"{MARK}={mark}".encode()) + rb"[/\0]")
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone, or of another user
            if wanted.search((folder / "environ").read_bytes()):
                yield int(folder.name)


def end_command(process, mark):
    """Ends a command and all that it has started, in sessions of their own, too."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    deadline = time.monotonic() + GRACE_SECONDS
    while (left := list(marked(mark))) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def run(command, log=None, env=None):
    """Exit status of a command, 124 when it took too long; its output goes to `log`, shown when it
    fails."""
    mark = f"{os.environ.get(MARK, '')}/{os.getpid()}.{next(NUMBERS)}"
    with open(log, "wb") if log else contextlib.nullcontext() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {}), MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if log else None,
            start_new_session=True,
        )
        RUNNING[process] = mark
        try:
            code = process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            end_command(process, mark)
            code = 124
        except BaseException:  # Ctrl-C does not reach another session
            end_command(process, mark)
            raise
        finally:
            RUNNING.pop(process, None)
    if log and code != 0:
        sys.stdout.write(Path(log).read_text(errors="replace")[-20000:])
    return code


def tracked(*patterns):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\n") if name and (ROOT / name).exists()]


def check_sources(tally):
    sources = tracked("*.c", "*.h")
    tally.add_step("format", run(["clang-format", "--dry-run", "-Werror", *sources]) == 0)
    upward = [
        f"{name}:{number}"
        for name in sources
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if re.match(r'\s*#\s*include\s+"\.\./', line)
    ]
    tally.add_step("include paths", not upward, ", ".join(upward))
    pages = tracked("doc/man/*")
    tally.add_step("man pages", run(["mandoc", "-Tlint", "-Wwarning", *pages]) == 0)


def set_up(name):
    """Makes the build folder, anew when it was made otherwise than BUILDS says now."""
    compiler, options, _env = BUILDS[name]
    folder, note = BUILD / name, BUILD / f"{name}.setup"
    setup = ["meson", "setup", str(folder), "-Dtests=true", "-Dwerror=true", *options]
    made_by = " ".join([f"CC={compiler}", *setup])
    if (folder / "build.ninja").exists():
        if note.exists() and note.read_text() == made_by:
            return True
        setup.append("--wipe")
    if run(setup, BUILD / f"{name}.setup.log", {"CC": compiler}) != 0:
        return False
    note.write_text(made_by)
    return True


def check_build(tally, name):
    folder = BUILD / name
    if not set_up(name):
        tally.add_step(f"{name} build", False)
        return False
    built = run(["ninja", "-C", str(folder)], BUILD / f"{name}.build.log") == 0
    tally.add_step(f"{name} build", built)
    return built


def check_unit(tally, name):
    folder = BUILD / name
    junit, results = folder / "meson-logs/testlog.junit.xml", folder / "meson-logs/testlog.json"
    for path in (junit, results):
        path.unlink(missing_ok=True)
    code = run(["meson", "test", "-C", str(folder), "--no-rebuild", "--print-errorlogs", "-t", "4"],
               BUILD / f"{name}.test.log", BUILDS[name][2])
    tally.add_junit(f"{name} unit, vectors, contract, fuzz", junit, code, bad_programs(results))


def check_fuzz(tally, name):
    """A short run of each libFuzzer target; its finds are thrown away unless they crash."""
    programs = sorted((BUILD / name / "tests/fuzz").glob("fuzz_*"))
    programs = [p for p in programs if p.is_file() and os.access(p, os.X_OK)]
    troubles = [] if programs else ["no targets"]
    for program in programs:
        with tempfile.TemporaryDirectory() as finds:
            corpus = ROOT / "tests/fuzz/corpus" / program.name.removeprefix("fuzz_")
            command = [str(program), f"-max_total_time={FUZZ_SECONDS}", "-timeout=20",
                       f"-artifact_prefix={BUILD}/{program.name}-", finds, str(corpus)]
            if run(command, BUILD / f"{program.name}.log", BUILDS[name][2]) != 0:
                troubles.append(f"{program.name}: see build/{program.name}.log")
    tally.add(f"{name} fuzz runs", len(programs) - len(troubles), len(troubles), 0, troubles)


def check_integration(tally, name):
    junit = BUILD / name / "integration.xml"
    junit.unlink(missing_ok=True)
    env = {**BUILDS[name][2], "LONELY_BUILD": str(BUILD / name)}
    code = run([*PYTEST, f"--junitxml={junit}", "tests/integration"],
               BUILD / f"{name}.integration.log", env)
    tally.add_junit(f"{name} integration", junit, code)


def check_rqlited(tally):
    """The database server that tests of rqlite start; kept between runs."""
    built = run([str(ROOT / "tools/rqlite/build.sh"), str(BUILD / "rqlited")],
                BUILD / "rqlited.build.log") == 0
    tally.add_step("rqlited build", built)


def check_builds(tally, rings, builds):
    """Integration tests mostly wait: they run beside the unit tests, and the next build and its tests."""
    integrations = []
    for name in builds:
        print(f"== {name}", flush=True)
        if not check_build(tally, name):
            continue
        if "unit" in rings:
            check_unit(tally, name)
        if "integration" in rings and name in RINGS["integration"][1]:
            thread = threading.Thread(target=check_integration, args=(tally, name))
            thread.start()
            integrations.append(thread)
        if "fuzz" in rings and name in RINGS["fuzz"][1]:
            check_fuzz(tally, name)
    for thread in integrations:
        thread.join()


def parse(arguments):
    """Rings and builds, in our order."""
    parser = argparse.ArgumentParser(
        prog="./dev check", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Builds what is tested and runs the tests, without arguments all of them. The last "
                    "line\nsays how many passed, failed and were skipped; 1 is returned when any failed.",
        epilog="rings:\n" + "".join(
            f"  {ring:<12}  {text}{'; of ' if builds else ''}{', '.join(builds)}\n"
            for ring, (text, builds) in RINGS.items()))
    parser.add_argument("rings", nargs="*", metavar="RING", help="only these, of those below")
    parser.add_argument("--build", action="append", choices=BUILDS, dest="builds",
                        help="only this build; may be given several times")
    chosen = parser.parse_args(arguments)
    unknown = [ring for ring in chosen.rings if ring not in RINGS]
    if unknown:
        parser.error(f"no such ring: {' '.join(unknown)}; there are: {' '.join(RINGS)}")
    rings = [ring for ring in RINGS if ring in (chosen.rings or RINGS)]
    builds = [name for name in BUILDS if name in (chosen.builds or BUILDS)
              and any(name in RINGS[ring][1] for ring in rings)]
    if chosen.builds and not builds:
        parser.error(f"nothing of {' '.join(rings)} is tested in the build {' '.join(chosen.builds)}")
    return rings, builds


def main(arguments):
    rings, builds = parse(arguments)
    started = time.monotonic()
    tally = Tally()
    try:
        if "sources" in rings:
            check_sources(tally)
        if "unit" in rings or "integration" in rings:
            check_rqlited(tally)
        check_builds(tally, rings, builds)
    except BaseException:  # Ctrl-C reaches this thread only
        for process, mark in list(RUNNING.items()):
            end_command(process, mark)
        raise
    print(f"== {time.monotonic() - started:.0f} s")
    for trouble in tally.troubles:
        print(f"FAILED {trouble}")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
