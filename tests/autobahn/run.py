"""Runs the Autobahn websocket suite against echo_server. Called by `./dev autobahn`.

The suite needs a CPython 2.7, which Debian no longer has: without one this says so and ends with 0.
`wstest` ends with 0 whatever it found, so the results are counted here. Cases 12 and 13 are about
compression, which we do not offer.

Usage: run.py ECHO_SERVER FOLDER [CASES]
"""

import glob
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

SUITE = ["autobahntestsuite==25.10.1"]
VIRTUALENV = "virtualenv==20.15.1"  # the last that makes environments of 2.7
CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")
PROBE = "import platform; print(platform.python_implementation() + platform.python_version()[:3])"


def find_python():
    """A CPython 2.7: PYTHON2, what is called so, or one that pyenv has; None."""
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    names = [os.environ.get("PYTHON2"), "python2.7", "python2"]
    names += sorted(glob.glob(f"{pyenv}/versions/2.7*/bin/python2.7"))
    for name in filter(None, names):
        try:
            said = subprocess.run([name, "-c", PROBE], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if said.stdout.strip() == "CPython2.7":
            return name
    return None


def install(python, folder):
    """The suite in an environment of its own, made once. Returns wstest."""
    wstest = folder / "env/bin/wstest"
    if not wstest.exists():
        tools = str(folder / "tools")
        quiet = ["-q", "--disable-pip-version-check"]
        subprocess.run([python, "-m", "pip", "install", *quiet, "--target", tools, VIRTUALENV],
                       check=True)
        subprocess.run([python, "-m", "virtualenv", "-q", str(folder / "env")],
                       check=True, env={**os.environ, "PYTHONPATH": tools})
        subprocess.run([str(folder / "env/bin/pip"), "install", *quiet, *SUITE], check=True)
    return str(wstest)


def run_suite(wstest, server, folder, cases):
    """The verdicts: case -> (behavior, behavior of the close)."""
    spec = folder / "fuzzingclient.json"
    index = folder / "reports/index.json"
    index.unlink(missing_ok=True)
    with subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as echo:
        port = echo.stdout.readline().split()[1]
        target = {"agent": "lonely", "url": f"ws://127.0.0.1:{port}"}
        spec.write_text(json.dumps({"outdir": str(folder / "reports"), "servers": [target],
                                    "cases": cases, "exclude-cases": [], "exclude-agent-cases": {}}))
        with open(folder / "wstest.log", "wb") as log:
            subprocess.run([wstest, "-m", "fuzzingclient", "-s", str(spec)], stdout=log,
                           stderr=subprocess.STDOUT, timeout=1800, cwd=folder)
        alive = echo.poll() is None
        echo.stdin.close()
    if not alive:
        print("the server ended while it was tested")
    verdicts = json.loads(index.read_text())["lonely"] if index.exists() and alive else {}
    return {case: (v["behavior"], v["behaviorClose"]) for case, v in verdicts.items()}


def main():
    server, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    python = find_python()
    if python is None:
        print("The Autobahn suite needs a CPython 2.7 (PYTHON2=/path/to/python2.7); none was found.\n"
              "The same groups of cases run without it in tests/unit/test_transport_frames.c.\n"
              "0 passed, 0 failed, 1 skipped")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = run_suite(install(python, folder), server, folder, sys.argv[3:] or CASES)
    failed = {case: v for case, v in verdicts.items() if v[0] not in GOOD or v[1] not in GOOD}
    for case in sorted(failed, key=lambda c: [int(n) for n in c.split(".")]):
        print(f"case {case}: {failed[case][0]}, close: {failed[case][1]}")
    print(", ".join(f"{n} {what}" for what, n in Counter(v[0] for v in verdicts.values()).items()))
    print(f"reports: {folder}/reports/index.html")
    print(f"{len(verdicts) - len(failed)} passed, {len(failed) + (not verdicts)} failed, 0 skipped")
    return 1 if failed or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
