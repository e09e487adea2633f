"""tools/check.py: what it makes of rings that hang, leave half a result, or were built otherwise; and which
rings it runs."""

import importlib.util
import json
import subprocess
import threading
from pathlib import Path

import pytest

from conftest import PATIENCE, ROOT, wait_until


@pytest.fixture
def tool(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("check", ROOT / "tools/check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BUILD", tmp_path)
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.2)
    return module


def is_running(pid):
    """A process that nobody has waited for does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("shell", ["sleep 1000 & echo $! >pid; wait",
                                   # deaf to SIGTERM, the grandchild as well
                                   "trap '' TERM; sleep 1000 & echo $! >pid; wait; wait",
                                   # in a session of its own, its parent gone
                                   "setsid -f sh -c 'echo $$ >pid; exec sleep 1000'; sleep 1000",
                                   # which is deaf
                                   "setsid -f sh -c 'trap \"\" TERM; echo $$ >pid; while :; do sleep 1; done';"
                                   " sleep 1000"])
def test_a_ring_that_hangs_leaves_nothing(tool, tmp_path, monkeypatch, shell):
    pid_file = tmp_path / "pid"

    def time_out(process, patience=None, wait=tool.subprocess.Popen.wait):
        if patience == tool.COMMAND_SECONDS:
            wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), "the grandchild")
            raise tool.subprocess.TimeoutExpired(process.args, patience)
        return wait(process, patience)

    monkeypatch.setattr(tool.subprocess.Popen, "wait", time_out)
    assert tool.run(["sh", "-c", f"cd {tmp_path}; {shell}"], tmp_path / "log") == 124
    pid = int(pid_file.read_text())
    wait_until(lambda: not is_running(pid), "the end of the grandchild")


def test_others_live_on(tool, tmp_path):
    """Those of another command, whose number begins alike."""
    mark = f"/{tool.os.getpid()}.1"
    others = [tool.subprocess.Popen(["sleep", "1000"], env={"PATH": "/usr/bin:/bin", tool.MARK: mark + end})
              for end in ("0", "", "/2.3")]
    try:
        assert sorted(tool.marked(mark)) == sorted(p.pid for p in others[1:])
    finally:
        for process in others:
            process.kill()
            process.wait()


def test_interrupted(tool, tmp_path, monkeypatch):
    class Interrupted(Exception):
        pass

    def interrupted(process, _timeout=None, wait=tool.subprocess.Popen.wait):
        if threading.current_thread() is threading.main_thread() and not started:
            started.append(process.pid)
            raise Interrupted
        return wait(process, _timeout)

    started = []
    monkeypatch.setattr(tool.subprocess.Popen, "wait", interrupted)
    with pytest.raises(Interrupted):
        tool.run(["sleep", "1000"])
    wait_until(lambda: not is_running(started[0]), "the end of the command")


def test_output_of_what_fails_is_shown(tool, tmp_path, capfd):
    assert tool.run(["sh", "-c", "echo this is why; exit 3"], tmp_path / "log") == 3
    assert tool.run(["sh", "-c", "echo all is well"], tmp_path / "log") == 0
    assert capfd.readouterr().out == "this is why\n"


@pytest.mark.parametrize("text, counts, trouble", [
    ('<s><testcase/><testcase><skipped/></testcase></s>', (1, 0, 1), None),
    ('<s><testcase name="n" classname="c"><failure/></testcase></s>', (0, 1, 0), "ring: c n"),
    ('<s><testcase name="n"/><testca', (0, 1, 0), "ring: junit.xml cannot be read: "),
    ("", (0, 1, 0), "ring: junit.xml cannot be read: "),
    ("<s/>", (0, 1, 0), "ring: no test ran"),
    (None, (0, 1, 0), "ring: no results"),
])
def test_results(tool, tmp_path, text, counts, trouble):
    """A file that is cut off is a failure like any other: the rings behind it still run."""
    path = tmp_path / "junit.xml"
    if text is not None:
        path.write_text(text)
    tally = tool.Tally()
    tally.add_junit("ring", path, 0)
    assert (tally.passed, tally.failed, tally.skipped) == counts
    assert len(tally.troubles) == (trouble is not None)
    assert all(t.startswith(trouble) for t in tally.troubles)


@pytest.mark.parametrize("cases, programs, counts, troubles", [
    # It died behind its first case.
    ('<testcase name="1 - a" classname="p.p:unit / x"/>', [("p:unit / x", "ERROR")], (1, 1, 0),
     ["ring: p:unit / x: ERROR, without a case that failed"]),
    # Another one failed; both are told.
    ('<testcase name="1 - a" classname="p.p:unit / x"/>'
     '<testcase name="2 - b" classname="p.p:unit / y"><failure/></testcase>',
     [("p:unit / x", "TIMEOUT"), ("p:unit / y", "FAIL")], (1, 2, 0),
     ["ring: p.p:unit / y 2 - b", "ring: p:unit / x: TIMEOUT, without a case that failed"]),
    # A program without cases is its own.
    ('<testcase name="p:fuzz / z" classname="p"><error/></testcase>', [("p:fuzz / z", "ERROR")], (0, 1, 0),
     ["ring: p p:fuzz / z"]),
    ('<testcase name="1 - a" classname="p.p:unit / x"/>',
     [("p:unit / x", "OK"), ("p:unit / y", "SKIP")], (1, 0, 0), []),
])
def test_programs_that_end_badly(tool, tmp_path, cases, programs, counts, troubles):
    (tmp_path / "junit.xml").write_text(f"<s>{cases}</s>")
    log = tmp_path / "testlog.json"
    log.write_text("".join(json.dumps({"name": name, "result": result}) + "\n" for name, result in programs))
    tally = tool.Tally()
    tally.add_junit("ring", tmp_path / "junit.xml", int(any(counts[1:])), tool.bad_programs(log))
    assert (tally.passed, tally.failed, tally.skipped) == counts
    assert tally.troubles == troubles


def test_a_real_program_that_dies(tool, tmp_path):
    """As meson tells of it."""
    (tmp_path / "meson.build").write_text(
        "project('p')\n"
        "test('dies', find_program('dies.sh'), suite: 'unit', protocol: 'tap')\n"
        "test('fails', find_program('fails.sh'), suite: 'other', protocol: 'tap')\n")
    for name, text in (("dies", "echo 1..2; echo ok 1 - a; kill -SEGV $$"),
                       ("fails", "echo 1..2; echo ok 1 - a; echo not ok 2 - b; exit 1")):
        (tmp_path / f"{name}.sh").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / f"{name}.sh").chmod(0o755)
    folder, logs = tmp_path / "b", tmp_path / "b/meson-logs"
    assert tool.run(["meson", "setup", str(folder), str(tmp_path)], tmp_path / "log") == 0
    code = tool.run(["meson", "test", "-C", str(folder)], tmp_path / "log")
    tally = tool.Tally()
    tally.add_junit("ring", logs / "testlog.junit.xml", code, tool.bad_programs(logs / "testlog.json"))
    assert (tally.passed, tally.failed, tally.skipped) == (2, 2, 0)
    assert sorted(tally.troubles) == ["ring: p.p:other / fails 2 - b",
                                      "ring: p:unit / dies: ERROR, without a case that failed"]


@pytest.mark.parametrize("arguments, ran", [
    ([], ["sources", "rqlited", "build gcc", "unit gcc", "integration gcc", "build asan", "unit asan",
          "integration asan", "fuzz asan", "build tsan", "unit tsan"]),
    (["sources"], ["sources"]),
    (["fuzz", "sources"], ["sources", "build asan", "fuzz asan"]),
    (["integration"], ["rqlited", "build gcc", "integration gcc", "build asan", "integration asan"]),
    (["unit", "integration", "--build", "tsan"], ["rqlited", "build tsan", "unit tsan"]),
    (["--build", "asan", "--build", "gcc", "unit"],
     ["rqlited", "build gcc", "unit gcc", "build asan", "unit asan"]),
])
def test_choice(tool, monkeypatch, capsys, arguments, ran):
    calls = []

    def fake(name):
        def check(tally, *build):
            calls.append(" ".join([name, *build]))
            if name != "build":
                tally.add_step(calls[-1], True)
            return True
        return check

    for name in ("sources", "rqlited", "build", "unit", "fuzz", "integration"):
        monkeypatch.setattr(tool, f"check_{name}", fake(name))
    assert tool.main(arguments) == 0
    assert sorted(calls) == sorted(ran)
    passed = sum(not call.startswith("build") for call in ran)
    assert capsys.readouterr().out.splitlines()[-1] == f"{passed} passed, 0 failed, 0 skipped"


@pytest.mark.parametrize("arguments, said", [
    (["units"], "no such ring: units; there are: sources unit fuzz integration"),
    (["unit", "--build", "msan"], "invalid choice: 'msan'"),
    (["fuzz", "--build", "gcc"], "nothing of fuzz is tested in the build gcc"),
])
def test_wrong_choice(tool, capsys, arguments, said):
    with pytest.raises(SystemExit) as end:
        tool.main(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_help_runs_nothing():
    shown = subprocess.run([ROOT / "dev", "check", "--help"], capture_output=True, text=True,
                           timeout=PATIENCE)
    assert shown.returncode == 0
    assert shown.stdout.startswith("usage: ./dev check ")
    assert all(f"\n  {ring} " in shown.stdout for ring in ("sources", "unit", "fuzz", "integration"))


def test_options_that_change_reach_the_build(tool, tmp_path, monkeypatch):
    commands = []

    def fake_run(command, log=None, env=None):
        commands.append((*command, env["CC"]))
        folder = Path(command[2])
        folder.mkdir(exist_ok=True)
        (folder / "build.ninja").touch()
        return 0

    monkeypatch.setattr(tool, "run", fake_run)
    monkeypatch.setattr(tool, "BUILDS", {"b": ("gcc", ["-Dx=1"], {})})
    common = ("meson", "setup", str(tmp_path / "b"), "-Dtests=true", "-Dwerror=true")
    assert tool.set_up("b") and tool.set_up("b")
    assert commands == [(*common, "-Dx=1", "gcc")]
    for build in (("gcc", ["-Dx=2"], {}), ("clang", ["-Dx=2"], {})):
        commands.clear()
        monkeypatch.setattr(tool, "BUILDS", {"b": build})
        assert tool.set_up("b") and tool.set_up("b")
        assert commands == [(*common, "-Dx=2", "--wipe", build[0])]


def test_a_build_that_failed_is_tried_again(tool, tmp_path, monkeypatch):
    commands = []

    def fake_run(command, log=None, env=None):
        commands.append(command)
        return int(len(commands) == 1)

    monkeypatch.setattr(tool, "run", fake_run)
    monkeypatch.setattr(tool, "BUILDS", {"b": ("gcc", [], {})})
    assert [tool.set_up("b"), tool.set_up("b")] == [False, True]
    assert len(commands) == 2
