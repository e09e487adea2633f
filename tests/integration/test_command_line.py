"""The command line and the configuration of lonelypss: what is refused, in which words, with which exit
code. Running, signals and ends are in test_daemon.py.
"""

import json
import re
import socket
import subprocess

import pytest

import bodies
from conftest import LONELYPSS, PATIENCE, ROOT, Broadcaster, setup_folder
from wire import notify, post, subscribe

GOOD, MACHINE, CONFIGURATION = 0, 1, 2


def run(*args, cwd=None):
    return subprocess.run([LONELYPSS, *map(str, args)], cwd=cwd, capture_output=True, text=True,
                          timeout=PATIENCE, stdin=subprocess.DEVNULL)


def assert_refused(result, code, *words):
    """One line of complaint, beside the log's, and nothing on standard output."""
    assert (result.returncode, result.stdout) == (code, ""), result
    lines = [line for line in result.stderr.splitlines() if line.startswith("lonelypss: ")]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert str(word) in lines[0], lines[0]
    for line in result.stderr.splitlines():
        assert line in lines or re.match(r"\d{4}-\d\d-\d\dT\S+ (info|warn) ", line), line


@pytest.fixture
def folder(tmp_path):
    return setup_folder(tmp_path / "b")


def ini(folder, text):
    path = folder / "lonelypss.ini"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# ---- What needs no configuration ----


def test_version():
    meson = re.search(r"version: '([^']+)'", (ROOT / "meson.build").read_text()).group(1)
    result = run("--version")
    assert (result.returncode, result.stdout, result.stderr) == (GOOD, f"lonelypss {meson}\n", "")


def options_of_help():
    """section.key -> (kind, default)."""
    text = run("--help").stdout
    return {m[1]: (m[2], m[3])
            for m in re.finditer(r"^  (\w+\.\w+)=(.+) \(default (.+)\)$", text, re.M)}


def test_help_lists_every_option(folder):
    result = run("--help")
    assert (result.returncode, result.stderr) == (GOOD, "")
    section, sample = "", {}
    for line in (folder / "lonelypss.ini").read_text().splitlines():
        if m := re.fullmatch(r"\[(\w+)\]", line):
            section = m[1]
        elif m := re.fullmatch(r"#(\w+) = (.*)", line):
            sample[f"{section}.{m[1]}"] = m[2]
    options = options_of_help()
    assert len(options) > 40
    assert {k: default for k, (_, default) in options.items()} == sample
    for flag in ("--config", "--listen", "--set", "--check-config", "--setup", "--dir", "--db",
                 "--to-broadcasters-auth", "--to-subscribers-secret", "--version", "--help"):
        assert flag in result.stdout


def test_every_default_can_be_given(folder):
    values = [f"--set={key}={default}" for key, (_, default) in options_of_help().items()
              if key != "auth.secrets"]
    result = run("--config", folder / "lonelypss.ini", *values, "--check-config")
    assert (result.returncode, result.stderr) == (GOOD, "")


@pytest.mark.parametrize("args, words", [
    (["--bogus"], ["--bogus", "--help"]), (["extra"], ["extra"]), (["--config"], ["--config"]),
    (["--set", "a"], ["section.key=value"]), (["--set", "no.such=1"], ["no.such"]),
    (["--set", "limits.retry_after=x"], ["limits.retry_after"]),
    (["--set", "broadcaster.workers=-1"], ["broadcaster.workers"]),
    (["--set", "limits.message_body_spool_size=1T"], ["limits.message_body_spool_size"]),
    (["--set", "database.type=oracle"], ["database.type", "sqlite"]),
    (["--set", "webhook.proxy=ftp://x"], ["webhook.proxy"]),
    (["--listen", "127.0.0.1"], ["127.0.0.1"]), (["--listen", "127.0.0.1:65536"], ["65536"]),
    (["--listen", ":"], []),
])
def test_bad_arguments(folder, args, words):
    assert_refused(run("--config", folder / "lonelypss.ini", *args), CONFIGURATION, *words)


def test_no_configuration(tmp_path):
    """Names the command that makes one."""
    assert_refused(run(cwd=tmp_path), CONFIGURATION, "--setup")
    assert_refused(run("--config", tmp_path / "absent.ini"), CONFIGURATION, tmp_path / "absent.ini")
    assert_refused(run("--config", tmp_path), CONFIGURATION, tmp_path)


# ---- The configuration file ----


def test_check_config(folder):
    result = run("--config", folder / "lonelypss.ini", "--check-config")
    assert (result.returncode, result.stderr) == (GOOD, "")
    assert sorted(p.name for p in folder.iterdir()) == [
        "broadcaster-secrets.json", "lonelypss.ini", "subscriber-secrets.json"]


@pytest.mark.parametrize("text, line, words", [
    ("[broadcaster]\nworkers = 1\nworkers = 2\n", 3, ["broadcaster.workers", "twice"]),
    ("[broadcaster]\nworkers = many\n", 2, ["broadcaster.workers", "many"]),
    ("[broadcaster]\nworker = 1\n", 2, ["worker"]),
    ("# comment\n[brodcaster]\n", 2, ["brodcaster"]),
    ("workers = 1\n", 1, []), ("[broadcaster\n", 1, []), ("[broadcaster]\nworkers\n", 2, []),
    ("\n\n[http]\nheader_timeout = 10 parsecs\n", 4, ["http.header_timeout"]),
    ("[http]\nheader_timeout =\n", 2, ["http.header_timeout"]),
    ("[log]\nlevel = loud\n", 2, ["log.level", "debug"]),
    ("[limits]\nmax_topic_bytes = 65536\n", 2, ["limits.max_topic_bytes"]),
])
def test_bad_file(folder, text, line, words):
    path = ini(folder, text)
    for args in ([], ["--check-config"]):
        assert_refused(run("--config", path, *args), CONFIGURATION, f"{path}:{line}:", *words)


@pytest.mark.parametrize("text", [b"\0", b"\xff\xfe[\0", b"[broadcaster]\nspool_dir = a\0b\n",
                                  b"[broadcaster]\nspool_dir = " + b"x" * 200000, b"[" * 100000])
def test_rubbish_file(folder, text):
    assert_refused(run("--config", ini(folder, text)), CONFIGURATION, folder)


def test_forms_of_the_file(folder, start_broadcaster):
    """Comments, blanks, CR LF, a byte order mark, units."""
    ini(folder, "\ufeff; comment\r\n\r\n [limits] \r\n\tmax_topic_bytes\t= 5 \r\nretry_after=1m\r\n"
                "[http]\nheader_timeout = 1500ms\n[limits]\nmax_glob_bytes = 1K\n")
    broadcaster = start_broadcaster(folder)
    assert post(broadcaster, bodies.NOTIFY, bodies.notify("12345", b"")).status == 200
    assert post(broadcaster, bodies.NOTIFY, bodies.notify("123456", b"")).status == 400


def test_paths_are_relative_to_the_file(folder, start_broadcaster, tmp_path):
    (folder / "data").mkdir()
    ini(folder, "[database]\npath = data/mine.db\n[broadcaster]\nspool_dir = data/bodies\n")
    start_broadcaster(folder)
    assert {"mine.db", "bodies"} <= {p.name for p in (folder / "data").iterdir()}
    assert not (folder / "subscriptions.db").exists()


def test_file_in_the_working_folder(folder):
    result = run("--check-config", cwd=folder)
    assert (result.returncode, result.stderr) == (GOOD, "")


def test_set_wins_over_the_file(folder, start_broadcaster, subscriber):
    ini(folder, "[broadcaster]\nlisten = 127.0.0.1:1\n[database]\npath = /nowhere/x.db\n")
    broadcaster = start_broadcaster(folder, database__type="memory")
    subscribe(broadcaster, "exact", subscriber.url(), "t")
    assert notify(broadcaster, "t") == 1


# ---- Secrets ----


def test_secrets_that_are_absent(folder):
    (folder / "broadcaster-secrets.json").unlink()
    for args in ([], ["--check-config"]):
        assert_refused(run("--config", folder / "lonelypss.ini", *args), CONFIGURATION,
                       "broadcaster-secrets.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": "3"}', "\0\xff"])
def test_secrets_that_are_no_secrets(folder, text):
    (folder / "broadcaster-secrets.json").write_text(text, "latin-1")
    assert_refused(run("--config", folder / "lonelypss.ini"), CONFIGURATION,
                   "broadcaster-secrets.json")


@pytest.mark.parametrize("scheme", ["hmac", "token"])
def test_also_accepted_secrets_are_checked(tmp_path, scheme):
    folder = setup_folder(tmp_path / scheme, "--to-broadcasters-auth", scheme)
    old = setup_folder(tmp_path / "old") / "broadcaster-secrets.json"
    accept = ["--set", f"auth.also_accept={old}"]
    config = ["--config", folder / "lonelypss.ini", "--check-config"]
    assert run(*config, *accept).returncode == GOOD
    old.chmod(0o644)
    assert_refused(run(*config, *accept, "--set", "auth.strict_permissions=yes"), CONFIGURATION,
                   "old", "chmod")
    secrets = json.loads((folder / "broadcaster-secrets.json").read_text())
    old.write_text(json.dumps(secrets)[:-1])
    result = run(*config, *accept)
    assert_refused(result, CONFIGURATION, "old")
    for part in secrets.values():
        if isinstance(part, dict) and "secret" in part:
            assert part["secret"] not in result.stderr


def test_secrets_that_others_can_read(folder):
    (folder / "broadcaster-secrets.json").chmod(0o644)
    config = folder / "lonelypss.ini"
    result = run("--config", config, "--check-config")
    assert result.returncode == GOOD and "readable" in result.stderr
    assert_refused(run("--config", config, "--set", "auth.strict_permissions=yes", "--check-config"),
                   CONFIGURATION, "chmod")


def test_no_secrets(folder, start_broadcaster):
    (folder / "broadcaster-secrets.json").unlink()
    assert notify(start_broadcaster(folder, auth__secrets="none"), "t") == 0


# ---- The machine ----


def test_port_in_use(start_broadcaster, folder):
    running = start_broadcaster()
    result = run("--config", folder / "lonelypss.ini", "--listen", running.address)
    assert_refused(result, MACHINE, running.address, "in use")
    assert notify(running, "t") == 0


def test_address_of_another_machine(folder):
    result = run("--config", folder / "lonelypss.ini", "--listen", "192.0.2.1:0")
    assert_refused(result, MACHINE, "192.0.2.1:0")


def test_name_that_leads_nowhere(folder):
    result = run("--config", folder / "lonelypss.ini", "--listen", "nowhere.invalid:0")
    assert_refused(result, MACHINE, "nowhere.invalid")


@pytest.mark.parametrize("option, path", [
    ("broadcaster.spool_dir", "file"), ("broadcaster.spool_dir", "file/x"),
    ("broadcaster.spool_dir", "absent/x"), ("database.path", "file/x"), ("database.path", "absent/x"),
    ("database.path", "folder"), ("database.path", "file"),
])
def test_paths_that_cannot_be(folder, option, path):
    (folder / "file").write_text("no database, and no folder " * 100)
    (folder / "folder").mkdir()
    result = run("--config", folder / "lonelypss.ini", "--listen", "127.0.0.1:0",
                 "--set", f"{option}={folder / path}")
    assert_refused(result, MACHINE, folder / path)
    assert (folder / "file").read_text().startswith("no database")


def test_corrupt_database(folder, start_broadcaster):
    """Refused, not repaired and not overwritten."""
    broadcaster = start_broadcaster(folder)
    for i in range(300):
        subscribe(broadcaster, "exact", f"http://192.0.2.1/{i}", "t" * 100)
    broadcaster.stop()
    database = folder / "subscriptions.db"
    whole = database.read_bytes()
    damaged = whole[:100] + bytes([0x55]) * (len(whole) - 100)
    for content in (damaged, whole[:5000]):
        database.write_bytes(content)
        result = run("--config", folder / "lonelypss.ini", "--listen", "127.0.0.1:0")
        assert_refused(result, MACHINE, database)
        assert database.read_bytes() == content


def test_several_listeners(folder):
    broadcaster = Broadcaster(folder, ["--listen", "127.0.0.1:0", "--listen", "localhost:0",
                                       "--listen", "[::1]:0"])
    try:
        assert len(broadcaster.addresses) == 3
        for address, family in zip(broadcaster.addresses, (socket.AF_INET, None, socket.AF_INET6)):
            host, _, port = address.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as s:
                assert family in (None, s.family)
    finally:
        assert broadcaster.stop() == 0
