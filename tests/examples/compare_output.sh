#!/bin/sh
# compare_output.sh EXPECTED PROGRAM [ARGUMENT...]: fails unless the program succeeds and prints
# exactly the content of the file EXPECTED.
expected=$1
shift
output=$(mktemp) || exit 1
trap 'rm -f "$output"' EXIT
"$@" >"$output" || exit 1
diff -u "$expected" "$output"
