#!/bin/sh
# compile_as_user.sh INCLUDE-DIR EXAMPLES-DIR CC...: every example compiles as its Build line says, with
# no option of this project but the place of the headers, and has such a line. Prints TAP.
include=$1
examples=$2
shift 2
n=0

report() { # status, name
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}

for source in "$examples"/*.c; do
    name=$(basename "$source")
    "$@" -I"$include" -Wall -Werror=implicit-function-declaration -fsyntax-only "$source" >&2
    report $? "$name compiles"
    grep -q "^ \* Build: cc $name " "$source"
    report $? "$name says how to build it"
done
echo "1..$n"
[ "$n" -gt 0 ]
