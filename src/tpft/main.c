/*
 * tpft(1): files over tinyproto, compatible with the Python tool.  (doc/protocol/tinyproto.md, 14)
 */
#include <signal.h>
#include <sys/stat.h>

#include "serve.h"

int main(int argc, char **argv)
{
    struct options o;
    int code = options_parse(&o, argc, argv);
    mode_t mask;

    if (code >= 0)
        return code;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error of write() */
    mask = umask(0);
    (void)umask(mask);
    return o.n_listen > 0 ? serve(&o, 0666 & ~mask) : transfer(&o, 0666 & ~mask);
}
