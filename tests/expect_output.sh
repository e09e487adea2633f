#!/bin/sh
# Runs a program and compares its standard output with a text: expect_output.sh TEXT PROGRAM ARG...
# For examples, whose output is part of what they teach.
set -u
expected=$1
shift
got=$("$@") || { echo "exit code $? from: $*" >&2; exit 1; }
[ "$got" = "$expected" ] && exit 0
printf 'expected:\n%s\ngot:\n%s\n' "$expected" "$got" >&2
exit 1
