/*
 * Names of processes (store_process.h): "boot:pid:start", all from the kernel. Called by the backends.
 */
#include "store_process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The first line of a small file, without its end. */
static bool read_line(const char *path, char *out, int size)
{
    FILE *f = fopen(path, "re");
    bool good = f != NULL && fgets(out, size, f) != NULL;

    if (f != NULL)
        fclose(f);
    if (good)
        out[strcspn(out, "\n")] = '\0';
    return good;
}

static bool read_boot(char boot[64])
{
    return read_line("/proc/sys/kernel/random/boot_id", boot, 64);
}

/* false: there is no such process, or none that we can see. */
static bool identify(long pid, char out[STORE_PROCESS_SIZE])
{
    char path[64], boot[64], stat[1024];
    unsigned long long start;
    const char *at;

    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    if (!read_boot(boot) || !read_line(path, stat, sizeof stat))
        return false;
    at = strrchr(stat, ')'); /* the name before it may hold anything */
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    if (at == NULL)
        return false;
    start = strtoull(at, NULL, 10);
    snprintf(out, STORE_PROCESS_SIZE, "%s:%ld:%llu", boot, pid, start);
    return true;
}

void store_process_self(char out[STORE_PROCESS_SIZE])
{
    if (!identify((long)getpid(), out))
        snprintf(out, STORE_PROCESS_SIZE, "unknown:%ld", (long)getpid());
}

bool store_process_is_alive(const char *process)
{
    const char *pid = strchr(process, ':');
    char now[STORE_PROCESS_SIZE];

    return pid != NULL && identify(strtol(pid + 1, NULL, 10), now) && strcmp(now, process) == 0;
}

bool store_process_is_local(const char *process)
{
    char boot[64];
    size_t len;

    if (!read_boot(boot))
        return false;
    len = strlen(boot);
    return strncmp(process, boot, len) == 0 && process[len] == ':';
}
