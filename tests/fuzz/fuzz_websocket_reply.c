/*
 * The answer to a client's request for a websocket: what opens it is a head that opens it without what
 * follows, and no part of that head does.
 */
#include <stdlib.h>

#include "websocket_handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct websocket_reply_result check(const uint8_t *data, size_t size)
{
    static const char nonce[] = "the sample nonce"; /* whose proof is in the corpus */

    return websocket_check_reply((struct lonely_span){ data, size }, (const uint8_t *)nonce);
}

static void require(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct websocket_reply_result r = check(data, size);

    require(r.used <= size);
    if (r.reply == WEBSOCKET_REPLY_MORE)
        require(r.used == 0);
    else if (r.reply == WEBSOCKET_REPLY_REFUSED)
        require(r.status != 101 && r.used > 0);
    if (r.reply != WEBSOCKET_REPLY_OPEN)
        return 0;
    require(r.status == 101 && r.used > 0);
    require(check(data, r.used).reply == WEBSOCKET_REPLY_OPEN);
    require(check(data, r.used - 1).reply == WEBSOCKET_REPLY_MORE);
    return 0;
}
