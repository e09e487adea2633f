#!/bin/sh
# test_man.sh INCLUDE-DIR MAN-DIR [MANDOC]: every error is in lonelypsp(7), and of each header that
# lonelypsp(3) shows, every function; mandoc has no warning. Prints TAP.
include=$1
man=$2
mandoc=$3
n=0

report() { # status, name, what is wrong
    n=$((n + 1))
    if [ "$1" -ne 0 ]; then printf 'not '; fi
    shift
    echo "ok $n - $*"
}

errors=$(grep -o 'X(LONELY_[A-Z0-9_]*' "$include/lonely/error.h" | sed 's/X(//')
missing=$(for e in $errors; do grep -qx ".It Dv $e" "$man/lonelypsp.7" || echo "$e"; done)
[ -n "$errors" ] && [ -z "$missing" ]
report $? "every error is in lonelypsp(7)" $missing

for header in $(sed -n 's/^\.In //p' "$man/lonelypsp.3"); do
    functions=$(tr '\n' ' ' <"$include/$header" | grep -o 'LONELY_API [^;{]*;' |
        sed 's/(.*//; s/.*[ *]//')
    missing=$(for f in $functions; do
        { grep -qE "^\.Nm $f( ,)?\$" "$man/lonelypsp.3" &&
            grep -qE "^\.F[no] $f( |\$)" "$man/lonelypsp.3"; } || echo "$f"
    done)
    [ -z "$missing" ]
    report $? "every function of $header is in lonelypsp(3)" $missing
done

for page in "$man"/*.[1-9]; do
    if [ -n "$mandoc" ]; then
        warnings=$($mandoc -Tlint -Wwarning "$page")
        [ -z "$warnings" ]
        report $? "$(basename "$page") has no warning" $warnings
    fi
done
echo "1..$n"
