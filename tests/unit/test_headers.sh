#!/bin/sh
# test_headers.sh INCLUDE-DIR CC [CXX]: every public header compiles alone, as C99 and as C++, with
# all warnings as errors, and is installed. Prints TAP.
include=$1
cc=$2
cxx=$3
flags="-Wall -Wextra -pedantic -Werror -fsyntax-only -I$include"
n=0

report() { # status, name
    n=$((n + 1))
    if [ "$1" -eq 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}

cd "$include" || exit 1
for header in */*.h; do
    printf '#include <%s>\n' "$header" | $cc -std=c99 $flags -x c - >&2
    report $? "$header as C99"
    if [ -n "$cxx" ]; then
        printf '#include <%s>\n' "$header" | $cxx -std=c++11 $flags -x c++ - >&2
        report $? "$header as C++"
    fi
    grep -q "'$header'" meson.build
    report $? "$header is installed"
done
echo "1..$n"
[ "$n" -gt 0 ]
