/*
 * readme-client --connect HOST:PORT
 *
 * The example of the README of the Python package tinyproto: transmits each line of standard input and
 * prints the answer; ends after QUIT or SRVQUIT, or with the input.
 *
 * Build: cc readme_client.c $(pkg-config --cflags --libs tinyproto)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tinyproto/sync.h>

static int fail(const struct tinyproto_cause *why)
{
    char text[TINYPROTO_CAUSE_MAX];

    fprintf(stderr, "readme-client: %s\n", tinyproto_cause_print(why, text, sizeof(text)));
    return 1;
}

static int converse(struct tinyproto_sync *sync)
{
    struct tinyproto_cause why;
    char line[4096];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        size_t len = strcspn(line, "\n"), answer_len;
        void *answer;

        line[len] = '\0';
        if (tinyproto_sync_transmit(sync, line, len, 10000, &why) != TINYPROTO_OK)
            return fail(&why);
        if (strcmp(line, "QUIT") == 0 || strcmp(line, "SRVQUIT") == 0)
            break;
        if (tinyproto_sync_receive(sync, 10000, &answer, &answer_len, &why) != TINYPROTO_OK)
            return fail(&why);
        printf("Response from server: %.*s\n", (int)answer_len, (const char *)answer);
        free(answer);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct tinyproto_address address;
    struct tinyproto_sync *sync;
    struct tinyproto_cause why;
    int code;

    if (argc != 3 || strcmp(argv[1], "--connect") != 0 ||
        tinyproto_address_parse(argv[2], &address) != TINYPROTO_OK) {
        fprintf(stderr, "usage: readme-client --connect HOST:PORT\n");
        return 2;
    }
    if (tinyproto_sync_connect(&address, 5000, &sync, &why) != TINYPROTO_OK)
        return fail(&why);
    code = converse(sync);
    tinyproto_sync_close(sync);
    return code;
}
