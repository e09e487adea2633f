/*
 * The INI reader and the options: whatever a file holds, lines are counted right, strings stay in
 * the text, an error has a text, and a configuration that is accepted reads again from its sample.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "ini.h"
#include "mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reading {
    const char *text, *end;
    struct conf *conf;
    unsigned last_line;
    bool all_set;
};

static void require(bool good)
{
    if (!good)
        abort();
}

static void require_inside(const struct reading *r, const char *s)
{
    require(s >= r->text && s + strlen(s) <= r->end);
}

static bool on_line(void *arg, const struct ini_line *l)
{
    struct reading *r = arg;
    struct conf_error error = { "" };
    char *assignment = NULL;

    require(l->number > r->last_line);
    r->last_line = l->number;
    require_inside(r, l->section);
    if (l->key == NULL)
        return true;
    require_inside(r, l->key);
    require_inside(r, l->value);
    require(*l->key != '\0' && strchr(l->key, '=') == NULL);
    require(asprintf(&assignment, "%s.%s=%s", l->section, l->key, l->value) > 0);
    if (!conf_set(r->conf, assignment, &error)) {
        require(error.text[0] != '\0' && strchr(error.text, '\n') == NULL);
        r->all_set = false;
    }
    free(assignment);
    return true;
}

/* Reads the sample of `from` into a configuration that must then have the same sample. */
static void check_sample(const struct conf *from)
{
    char *sample = NULL, *copy, *again = NULL;
    struct reading r = { .all_set = true };
    struct ini_error error;
    struct conf c;
    size_t len, again_len;
    FILE *f = open_memstream(&sample, &len);

    require(f != NULL);
    conf_print_sample(f, from);
    fclose(f);
    conf_init(&c);
    copy = mem_dup(sample, len + 1);
    r.text = copy;
    r.end = copy + len;
    r.conf = &c;
    require(ini_parse(copy, len, on_line, &r, &error) && r.all_set);
    f = open_memstream(&again, &again_len);
    require(f != NULL);
    conf_print_sample(f, &c);
    fclose(f);
    require(strcmp(sample, again) == 0);
    free(sample);
    free(again);
    mem_free(copy);
    conf_fini(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = mem_alloc(size + 1);
    struct conf conf;
    struct reading r = { .text = text, .end = text + size, .conf = &conf };
    struct ini_error error;

    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    conf_init(&conf);
    if (!ini_parse(text, size, on_line, &r, &error))
        require(error.text != NULL && error.line > r.last_line);
    check_sample(&conf);
    conf_fini(&conf);
    mem_free(text);
    return 0;
}
