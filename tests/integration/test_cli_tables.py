"""The tables of lonelypsc: --help, the manual and the completions say the same, and each option is taken."""

import re
import subprocess

import pytest

from conftest import BUILD, PATIENCE, ROOT
from shell_client import LONELYPSC, run

COMMANDS = ("subscribe", "notify", "check", "trace", "bench", "completion")
PAGE = (ROOT / "doc/man/lonelypsc.1").read_text()


def options_of(command):
    """Its own and the library's, from --help: name -> what follows it."""
    text = run(command, "--help").stdout
    own, _, library = text.partition("\nOptions of the library:\n")
    return tuple({name: rest.strip() for name, rest in re.findall(r"^  --(\S+)(.*(?:\n {10,}.*)?)", part, re.M)}
                 for part in (own, library))


def test_help_names_every_command():
    text = run("--help").stdout
    assert tuple(re.findall(r"^  (\w+)  ", text, re.M)) == COMMANDS
    assert run("help").stdout == text
    for command in COMMANDS:
        assert run(command, "--help").stdout.startswith(f"Usage: lonelypsc {command} ")
    assert re.fullmatch(r"lonelypsc \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "completion"])
def test_the_manual_lists_the_options_of_each_command(command):
    section = re.search(rf"^\.Ss {command}$(.*?)^\.S[sh]", PAGE, re.M | re.S).group(1)
    assert re.findall(r"^\.It Fl Fl (\S+)", section, re.M) == list(options_of(command)[0])


def test_the_manual_lists_the_options_of_the_library():
    section = re.search(r"^\.Ss Options of the library$(.*?)^\.Sh", PAGE, re.M | re.S).group(1)
    items = dict(re.findall(r"^\.It Fl Fl (\S+).*\n((?:[^.].*\n|\.[^I].*\n)*)", section, re.M))
    library = options_of("subscribe")[1]
    assert list(items) == list(library)
    for name, text in items.items():
        default = re.search(r"\(default: (.*)\)", library[name])
        assert re.findall(r"^Default: (.*)\.$", text, re.M) == ([default.group(1)] if default else []), name


def meanings():
    """Of the library's options, as --help has them."""
    return {name: re.sub(r" \(default: [^()]*\)$", "", re.split(r"\s{2,}|\n\s+", rest, maxsplit=1)[-1])
            for name, rest in options_of("subscribe")[1].items()}


@pytest.mark.parametrize("page, item", [("lonelypsc.1", r"Fl Fl (\S+)"), ("lonelypsc.3", r"Cm (\S+) No = ")])
def test_manuals_say_what_the_table_says(page, item):
    section = re.search(r"^\.(?:Ss Options of the library|Sh OPTIONS)$(.*?)^\.S[hs]",
                        (ROOT / "doc/man" / page).read_text(), re.M | re.S).group(1)
    items = re.findall(rf"^\.It {item}.*\n((?:[^.].*\n)*)", section, re.M)
    said = {name.replace("_", "-"): " ".join(re.sub(r"^Default: .*\.$", "", text, flags=re.M).split()).rstrip(".")
            for name, text in items}
    assert said == meanings()


def complete(*words):
    """What bash's completion function answers when the last word is being typed."""
    script = BUILD / "src/cli/lonelypsc.bash"
    text = 'compopt() { :; }; . "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); ' \
           '_lonelypsc lonelypsc "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" || exit; ' \
           'printf "%s\\n" "${COMPREPLY[@]}"'
    result = subprocess.run(["bash", "-c", text, "bash", script, "lonelypsc", *words], capture_output=True,
                            text=True, timeout=PATIENCE)
    assert result.stderr == ""
    return result.stdout.split()


def test_bash():
    assert complete("") == ["--help", "--version", *COMMANDS]
    assert complete("sub") == ["subscribe"]
    for command in COMMANDS:
        own, library = options_of(command)
        assert complete(command, "--") == [f"--{name}" for name in [*own, *library, "help"]]
    assert complete("subscribe", "--format", "") == ["text", "raw", "jsonl"]
    assert complete("subscribe", "--format", "=") == ["text", "raw", "jsonl"]
    assert complete("subscribe", "--format", "=", "r") == ["raw"]
    assert complete("notify", "--io", "") == ["thread", "caller"]
    assert complete("notify", "--allow-compression", "n") == ["no"]
    assert complete("notify", "--broadcaster", "") == []
    assert complete("completion", "z") == ["zsh"]


def test_bash_completes_files(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for words in (("notify", "--file"), ("subscribe", "--secrets"), ("trace",)):
        assert set(complete(*words, f"{tmp_path}/f")) == {f"{tmp_path}/folder", f"{tmp_path}/file"}
    assert complete("subscribe", "--output", f"{tmp_path}/f") == [f"{tmp_path}/folder"]


def test_zsh():
    text = (BUILD / "src/cli/_lonelypsc").read_text()
    assert text.startswith("#compdef lonelypsc\n")
    for command in COMMANDS:
        section = re.search(rf"^    {command}\)$(.*?);;$", text, re.M | re.S).group(1)
        own, library = options_of(command)
        assert re.findall(r"'\*--([a-z0-9-]+)=?\[", section) == [*own, *library, "help"]


# Types a line and a tab into an interactive zsh that has loaded the function, and has it write what the line is then.
ZSH = r"""
zmodload zsh/zpty
zpty typist zsh -f -i
zpty -w typist "fpath=(${(q)1} \$fpath); autoload -Uz compinit && compinit -u -D; PS1=; unsetopt prompt_cr prompt_sp"
zpty -w typist 'print ready-$((1 + 1))'
zpty -r typist out '*ready-2*'
zpty -w -n typist "$2"$'\t\C-aprint -r -- "\C-e" >'"${(q)3}; print end-\$((1 + 1))"$'\n'
zpty -r typist out '*end-2*'
"""


@pytest.mark.parametrize("typed, completed", [
    ("subs", "subscribe"), ("subscribe --max-fr", "subscribe --max-frame"), ("notify --topic", "notify --topic-hex"),
    ("subscribe --format j", "subscribe --format jsonl"), ("subscribe --data=n", "subscribe --data=never"),
    ("bench --js", "bench --json"), ("completion z", "completion zsh"),
    ("trace {0}/tr", "trace {0}/traces"), ("notify --file {0}/tr", "notify --file {0}/traces"),
    ("subscribe --output={0}/fo", "subscribe --output={0}/folder")])
def test_zsh_completes(tmp_path, typed, completed):
    (tmp_path / "traces").touch()
    (tmp_path / "folder").mkdir()
    line = tmp_path / "line"
    subprocess.run(["zsh", "-f", "-c", ZSH, "zsh", BUILD / "src/cli", "lonelypsc " + typed.format(tmp_path), line],
                   check=True, timeout=PATIENCE)
    assert line.read_text().rstrip() == "lonelypsc " + completed.format(tmp_path)


def test_completion_is_what_the_program_prints():
    for shell, name in (("bash", "lonelypsc.bash"), ("zsh", "_lonelypsc")):
        assert run("completion", shell).stdout == (BUILD / "src/cli" / name).read_text()
    for words in ([], ["fish"]):
        result = run("completion", *words)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == "lonelypsc: completion: expected bash or zsh\n"


# A value that each option of the library takes, and does not change what a notify does.
GOOD = {
    "broadcaster": None, "io": "caller", "secrets": None, "bind": "127.0.0.1:0", "host": "http://127.0.0.1:1/x#y",
    "ca": None, "cert": None, "key": None, "receiver-cert": None, "receiver-key": None, "proxy": "none",
    "spool-dir": "/tmp", "tracing": "none", "dictionary": None, "initial-compression-dict-id": "none",
    "max-frame": "1M", "max-websocket-message-size": "64K",
}
BAD = {"broadcaster": "x://y", "io": "fork", "bind": "nowhere", "proxy": "x", "dictionary": "1 2", "host": "x"}
PATHS = {"secrets", "ca", "cert", "key", "receiver-cert", "receiver-key", "spool-dir", "tracing"}


@pytest.mark.parametrize("transport", ["http", "ws"])
def test_every_option_of_the_library_is_taken(broadcaster, transport):
    args = ["--broadcaster", f"{broadcaster.url.replace('http', transport, 1)} 5"]
    for name, rest in options_of("notify")[1].items():
        kind = rest.split("  ")[0].strip()
        value = GOOD.get(name, {"ms|s|m|h": "20s", "yes|no": "yes", "count": "3", "bytes": "8M"}.get(kind))
        if name not in GOOD:
            assert value is not None, (name, kind)
        if value is not None:
            args.append(f"--{name}={value}")
    result = run("notify", "t", "--message", "x", *args)
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n", "")


@pytest.mark.parametrize("name", [n for n in options_of("notify")[1] if n not in PATHS]
                         if LONELYPSC.exists() else [])
def test_wrong_values_of_the_library_name_the_option(name):
    args = ["--broadcaster", "http://127.0.0.1:1"] if name != "broadcaster" else []
    result = run("notify", "t", "--message", "x", *args, f"--{name}", BAD.get(name, "-7x"))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"lonelypsc: --{name}: "), result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["secrets", "ca", "tracing", "receiver-cert"])
def test_wrong_files_of_the_library(name, tmp_path):
    args = ["--receiver-key", tmp_path / "none"] if name == "receiver-cert" else []
    result = run("check", "--broadcaster", "http://127.0.0.1:1", f"--{name}", tmp_path / "none/x", *args)
    assert result.returncode in (2, 5)
    result = run("subscribe", "--exact", "x", "--broadcaster", "https://127.0.0.1:1", f"--{name}", tmp_path / "none/x",
                 *args)
    assert result.returncode in (1, 2)
    assert str(tmp_path) in result.stderr and result.stderr.count("\n") == 1
