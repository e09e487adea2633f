"""tools/check.py: what it makes of rings that hang, leave half a result, or were built otherwise."""

import importlib.util
import threading
from pathlib import Path

import pytest

from conftest import ROOT, wait_until


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
                                   "trap '' TERM; sleep 1000 & echo $! >pid; wait; wait"])
def test_a_ring_that_hangs_leaves_nothing(tool, tmp_path, shell):
    code = tool.run(["sh", "-c", f"cd {tmp_path}; {shell}"], tmp_path / "log", timeout=2)
    assert code == 124
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_running(pid), "the end of the grandchild")


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
