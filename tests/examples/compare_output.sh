#!/bin/sh
# compare_output.sh EXPECTED PROGRAM [ARGUMENT...]: fails unless the program succeeds and prints
# exactly the content of the file EXPECTED.
expected=$1
shift
"$@" | diff -u "$expected" - || exit 1
"$@" >/dev/null
