/*
 * Files without a name, also where the file system knows no O_TMPFILE: open is wrapped, by its name for large files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>

#include "fd.h"
#include "tables.h"

static int fails_with; /* an open with O_TMPFILE; 0: it does not */

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    if ((flags & O_TMPFILE) != O_TMPFILE || fails_with == 0)
        return __real_open64(path, flags, 0600);
    errno = fails_with;
    return -1;
}

static void unnamed(void **state)
{
    static const struct {
        int fails_with;
        bool good;
    } cases[] = { { 0, true },      { EOPNOTSUPP, true }, { EISDIR, true },
                  { EINVAL, true }, { ENOSPC, false },    { EACCES, false } };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct stat st;
        int fd;

        fails_with = cases[i].fails_with;
        fd = fd_open_unnamed("/tmp");
        assert_int_equal(fd >= 0, cases[i].good);
        if (fd < 0) {
            assert_int_equal(errno, fails_with);
            continue;
        }
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_nlink, 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_true(fd_write_all(fd, "x", 1));
        close(fd);
    }
    fails_with = 0;
    assert_int_equal(fd_open_unnamed("/nowhere"), -1);
    assert_int_equal(errno, ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(unnamed) };

    return cmocka_run_group_tests_name("fd", tests, NULL, NULL);
}
