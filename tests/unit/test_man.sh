#!/bin/sh
# test_man.sh INCLUDE-DIR MAN-DIR [MANDOC]: every error of a library is in its page of errors, and of
# each header that its page in section 3 shows, every function; mandoc has no warning. Prints TAP.
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

check_library() { # header of errors, prefix of macros, page of functions, page of errors, prefix of errors
    errors=$(grep -o "X(${5:-$2}_[A-Z0-9_]*" "$include/$1" | sed 's/X(//')
    missing=$(for e in $errors; do grep -qx ".It Dv $e" "$man/$4" || echo "$e"; done)
    [ -n "$errors" ] && [ -z "$missing" ]
    report $? "every error of $1 is in $4" $missing

    for header in $(sed -n 's/^\.In //p' "$man/$3"); do
        functions=$(tr '\n' ' ' <"$include/$header" | grep -o "$2_API [^;{]*;" |
            sed 's/(.*//; s/.*[ *]//')
        missing=$(for f in $functions; do
            { grep -qE "^\.Nm $f( ,)?\$" "$man/$3" &&
                grep -qE "^\.F[no] $f( |\$)" "$man/$3"; } || echo "$f"
        done)
        [ -z "$missing" ]
        report $? "every function of $header is in $3" $missing
    done
}

check_library lonely/error.h LONELY lonelypsp.3 lonelypsp.7
check_library lonely/client.h LONELY lonelypsc.3 lonelypsc.3 LONELY_CLIENT
check_library lonely/broadcaster.h LONELY lonelypss.3 lonelypss.3 LONELY_BROADCASTER
check_library tinyproto/error.h TINYPROTO tinyproto.3 tinyproto.3

for page in "$man"/*.[1-9]; do
    if [ -n "$mandoc" ]; then
        warnings=$($mandoc -Tlint -Wwarning "$page")
        [ -z "$warnings" ]
        report $? "$(basename "$page") has no warning" $warnings
    fi
done
echo "1..$n"
