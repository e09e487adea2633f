#!/bin/sh
# test_exports.sh INCLUDE-DIR LIBRARY.so: the library exports nothing but functions marked LONELY_API,
# and of each header that it implements all of them. Prints TAP.
include=$1
library=$2
n=0

report() { # status, name, what is wrong
    n=$((n + 1))
    if [ "$1" -ne 0 ]; then printf 'not '; fi
    shift
    echo "ok $n - $*"
}

declared_in() { # header: the names of its exported functions, a line each
    tr '\n' ' ' <"$1" | grep -o 'LONELY_API [^;{]*;' | sed 's/(.*//; s/.*[ *]//' | sort
}

exported=$(nm -D --defined-only "$library" | awk '{ print $3 }' | sort)
all=$(for header in "$include"/lonely/*.h; do declared_in "$header"; done)

[ -n "$exported" ]
report $? "the library exports something"
unmarked=$(printf '%s\n' "$exported" | grep -vxF "$all")
[ -z "$unmarked" ]
report $? "every export is marked LONELY_API" $unmarked
for header in "$include"/lonely/*.h; do
    here=$(declared_in "$header")
    [ -n "$here" ] && printf '%s\n' "$exported" | grep -qxF "$here" || continue
    missing=$(printf '%s\n' "$here" | grep -vxF "$exported")
    [ -z "$missing" ]
    report $? "all of $(basename "$header") is exported" $missing
done
echo "1..$n"
