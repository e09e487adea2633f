/*
 * Runs a fuzz target over files, without a fuzzing engine: what every compiler can do with the
 * corpora on every run of the tests. Arguments are files or folders, folders not recursed into.
 * A property that does not hold aborts, as it does under libFuzzer. Finding no file is an error:
 * a target whose corpus is lost must not pass.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t files_run;

static void fail(const char *what, const char *path)
{
    fprintf(stderr, "%s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

/* The input lies in an exactly sized block, so that a sanitizer sees a byte read too far. */
static void run_file(const char *path, size_t size)
{
    uint8_t *data = malloc(size == 0 ? 1 : size);
    FILE *f = fopen(path, "rb");

    if (data == NULL || f == NULL || fread(data, 1, size, f) != size)
        fail("cannot read", path);
    fclose(f);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    files_run++;
}

static void run_folder(const char *path)
{
    DIR *d = opendir(path);

    if (d == NULL)
        fail("cannot open", path);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char file[4096];
        struct stat st;

        if (snprintf(file, sizeof(file), "%s/%s", path, e->d_name) >= (int)sizeof(file) ||
            stat(file, &st) != 0)
            fail("cannot look at", e->d_name);
        if (S_ISREG(st.st_mode))
            run_file(file, (size_t)st.st_size);
    }
    closedir(d);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct stat st;

        if (stat(argv[i], &st) != 0)
            fail("cannot look at", argv[i]);
        if (S_ISDIR(st.st_mode))
            run_folder(argv[i]);
        else
            run_file(argv[i], (size_t)st.st_size);
    }
    printf("%zu files\n", files_run);
    return files_run > 0 ? 0 : 1;
}
