/*
 * tiny_sink ADDRESS: receives one message in pieces and prints its size. For the integration tests,
 * which watch its memory.
 */
#include <inttypes.h>
#include <stdio.h>

#include <tinyproto/tinyproto.h>

static bool count(void *arg, const uint8_t *ptr, size_t len)
{
    uint64_t *n = arg;

    (void)ptr;
    *n += len;
    return true;
}

int main(int argc, char **argv)
{
    struct tinyproto_address address;
    struct tinyproto_sync *sync;
    uint64_t n = 0, size = 0;
    enum tinyproto_error err;

    if (argc != 2 || tinyproto_address_parse(argv[1], &address) != TINYPROTO_OK ||
        tinyproto_sync_connect(&address, 5000, &sync, NULL) != TINYPROTO_OK)
        return 1;
    err = tinyproto_sync_receive_to(sync, -1, count, &n, &size, NULL);
    if (err == TINYPROTO_OK && n == size)
        printf("%" PRIu64 "\n", size);
    tinyproto_sync_close(sync);
    return err == TINYPROTO_OK ? 0 : 1;
}
