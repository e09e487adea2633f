#!/bin/sh
# test_exports.sh INCLUDE-DIR LIBRARY.so FOLDER MACRO: the library exports nothing but functions of
# the headers in FOLDER marked MACRO, and of each header that it implements all of them. Prints TAP.
include=$1/$3
library=$2
macro=$4
n=0

report() { # status, name, what is wrong
    n=$((n + 1))
    if [ "$1" -ne 0 ]; then printf 'not '; fi
    shift
    echo "ok $n - $*"
}

declared_in() { # header: the names of its exported functions, a line each
    tr '\n' ' ' <"$1" | grep -o "$macro [^;{]*;" | sed 's/(.*//; s/.*[ *]//' | sort
}

# Sections of the sanitizers have a beginning and an end that the linker exports.
exported=$(nm -D --defined-only "$library" | awk '$3 !~ /^__(start|stop)___sancov_/ { print $3 }' | sort)
all=$(for header in "$include"/*.h; do declared_in "$header"; done)

[ -n "$exported" ]
report $? "the library exports something"
unmarked=$(printf '%s\n' "$exported" | grep -vxF "$all")
[ -z "$unmarked" ]
report $? "every export is marked $macro" $unmarked
for header in "$include"/*.h; do
    here=$(declared_in "$header")
    [ -n "$here" ] && printf '%s\n' "$exported" | grep -qxF "$here" || continue
    missing=$(printf '%s\n' "$here" | grep -vxF "$exported")
    [ -z "$missing" ]
    report $? "all of $(basename "$header") is exported" $missing
done
echo "1..$n"
