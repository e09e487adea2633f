"""README.md and the like: what they name is there."""

import fnmatch
import re
import subprocess

import pytest

from conftest import ROOT

FILES = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                       capture_output=True, text=True, check=True).stdout.splitlines()
FOLDERS = {"/".join(name.split("/")[:depth]) for name in FILES for depth in range(1, name.count("/") + 1)}
DOCUMENTS = [name for name in FILES if name.endswith(".md") and name.count("/") <= 1]
SOURCE = re.compile(r"[\w*][\w*<>/.-]*\.(?:c|h|sh|md)\b")
FOLDER = re.compile(r"(?<![\w/-])(?:src|tests|tools|doc|examples|include)/[\w/.-]*")


def is_there(name):
    """A path, or the end of one; `*` and `<name>` stand for anything."""
    pattern = re.sub(r"<\w+>", "*", name.removeprefix("./"))
    return any(fnmatch.fnmatch(path, pattern) or fnmatch.fnmatch(path, f"*/{pattern}") for path in FILES)


def missing(document):
    text = (ROOT / document).read_text()
    folder = (ROOT / document).parent
    links = re.findall(r"\]\(([^)#\s]+)", text)
    for link in links:
        if "://" not in link and not (folder / link).exists():
            yield link
    code = re.findall(r"`([^`\n]+)`", text)
    if document == "doc/architecture.md":  # whose drawings name files, too
        code += re.findall(r"```\n(.*?)```", text, re.DOTALL)
    for piece in code:
        if "://" in piece:
            continue
        yield from (name for name in SOURCE.findall(piece) if not is_there(name))
        yield from (name for name in FOLDER.findall(piece)
                    if name.rstrip("/") not in FOLDERS and not is_there(name))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_is_named_is_there(document):
    assert list(missing(document)) == []


def test_what_is_not_there_is_found(tmp_path, monkeypatch):
    (tmp_path / "doc").mkdir()
    (tmp_path / "doc/architecture.md").write_text(
        "[a](gone.md) [b](https://example.org/gone.md) [c](architecture.md#x)\n"
        "`route_gone.c`, `routes.c`, `route_*.c`, `gone_*.c`, `cmd_<name>.c`, `src/gone/`, `src/net/`\n"
        "```\n-> other_gone.c -> http_server.c\n```\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert list(missing("doc/architecture.md")) == ["gone.md", "route_gone.c", "gone_*.c", "src/gone/",
                                                   "other_gone.c"]
