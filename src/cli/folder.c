/*
 * Messages as files (folder.h). Called by cmd_subscribe.c.
 */
#include "folder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "fd.h"
#include "print.h"

#define TOPIC_MAX_BYTES 100

bool folder_open(struct folder *f, const char *path)
{
    *f = (struct folder){ .path = path, .fd = -1 };
    if (path == NULL)
        return true;
    if (mkdir(path, 0777) != 0 && errno != EEXIST) {
        cli_complain("--output: %s: %s", path, strerror(errno));
        return false;
    }
    f->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (f->fd < 0)
        cli_complain("--output: %s: %s", path, strerror(errno));
    return f->fd >= 0;
}

void folder_close(struct folder *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

static bool is_harmless(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           strchr("._-", c) != NULL;
}

/* Begins with a digit: neither hidden nor an option of the programs that read it. */
static void make_name(struct folder *f, struct lonely_span topic, char name[FOLDER_NAME_MAX])
{
    int64_t now_ns = clock_wall_ns(&clock_system);
    time_t now_s = (time_t)(now_ns / 1000000000);
    char when[32];
    struct tm tm;
    size_t at;

    gmtime_r(&now_s, &tm);
    strftime(when, sizeof(when), "%Y%m%dT%H%M%S", &tm);
    at = (size_t)snprintf(name, FOLDER_NAME_MAX, "%s.%09" PRId64 "Z-%06" PRIu64 "-", when,
                          now_ns % 1000000000, ++f->count);
    for (size_t i = 0; i < topic.len && i < TOPIC_MAX_BYTES; i++)
        name[at++] = topic.ptr[i] != 0 && is_harmless(topic.ptr[i]) ? (char)topic.ptr[i] : '_';
    name[at] = '\0';
}

static bool take_piece(void *arg, struct lonely_span piece, bool more)
{
    (void)more;
    if (fd_write_all(*(int *)arg, (const char *)piece.ptr, piece.len))
        return true;
    cli_complain("--output: a message was not written: %s", strerror(errno));
    return false;
}

static bool write_file(const struct folder *f, const struct lonely_delivery *d, const char *part)
{
    int fd = openat(f->fd, part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    bool good;

    if (fd < 0) {
        cli_complain("--output: %s: %s", f->path, strerror(errno));
        return false;
    }
    good = delivery_each_piece(d, take_piece, &fd);
    if (close(fd) != 0 && good) {
        cli_complain("--output: a message was not written: %s", strerror(errno));
        good = false;
    }
    return good;
}

bool folder_add(struct folder *f, const struct lonely_delivery *d, char name[FOLDER_NAME_MAX])
{
    char part[FOLDER_NAME_MAX + 8];

    make_name(f, lonely_delivery_topic(d), name);
    snprintf(part, sizeof(part), ".%s.part", name);
    if (write_file(f, d, part)) {
        if (renameat2(f->fd, part, f->fd, name, RENAME_NOREPLACE) == 0 ||
            (errno == EINVAL && renameat(f->fd, part, f->fd, name) == 0)) /* of the file system */
            return true;
        cli_complain("--output: %s/%s: %s", f->path, name, strerror(errno));
    }
    unlinkat(f->fd, part, 0);
    return false;
}
