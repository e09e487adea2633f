/*
 * The whole database of an rqlite server, emptied (fixture_places.h), and what other programs say to
 * it (rqlite_tool.h).
 */
#include <stdio.h>
#include <stdlib.h>

#include <curl/curl.h>
#include <jansson.h>

#include "buf.h"
#include "fixture_places.h"
#include "rqlite_tool.h"
#include "tables.h"

static int places; /* in use */

static size_t keep_reply(char *ptr, size_t size, size_t n, void *arg)
{
    return buf_append(arg, ptr, size * n) ? size * n : 0;
}

/* The first result. */
static json_t *call(const char *server, const char *path, const char *body)
{
    CURL *easy = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    char url[FIXTURE_URL_MAX + 40];
    struct buf reply;
    json_t *parsed, *result;

    buf_init(&reply, 1 << 20);
    snprintf(url, sizeof url, "%s%s", server, path);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, keep_reply);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &reply);
    table_require(curl_easy_perform(easy) == CURLE_OK, url);
    curl_slist_free_all(headers);
    curl_easy_cleanup(easy);
    parsed = json_loadb((const char *)reply.ptr, reply.len, 0, NULL);
    buf_fini(&reply);
    table_require(json_is_array(json_object_get(parsed, "results")), body);
    for (size_t i = 0; i < json_array_size(json_object_get(parsed, "results")); i++) {
        json_t *error =
            json_object_get(json_array_get(json_object_get(parsed, "results"), i), "error");

        table_require(error == NULL, json_string_value(error));
    }
    result = json_incref(json_array_get(json_object_get(parsed, "results"), 0));
    json_decref(parsed);
    return result;
}

static const char *server_url(void)
{
    const char *url = getenv("LONELY_STORE_URL");

    table_require(url != NULL, "LONELY_STORE_URL is not set");
    return url;
}

void rqlite_tool_run(const char *statements)
{
    json_decref(call(server_url(), "/db/execute?transaction", statements));
}

static char *quoted(const char *sql)
{
    size_t size = strlen(sql) + 5;
    char *text = malloc(size);

    table_require(text != NULL, "memory");
    snprintf(text, size, "[\"%s\"]", sql);
    return text;
}

void rqlite_tool_exec(const char *sql)
{
    char *text = quoted(sql);

    rqlite_tool_run(text);
    free(text);
}

int64_t rqlite_tool_number(const char *sql)
{
    char *text = quoted(sql);
    json_t *result = call(server_url(), "/db/query?level=strong", text);
    json_t *value = json_array_get(json_array_get(json_object_get(result, "values"), 0), 0);
    int64_t n = json_is_integer(value) ? json_integer_value(value) : -1;

    json_decref(result);
    free(text);
    return n;
}

void place_rqlite_make(const char *server, char url[FIXTURE_URL_MAX])
{
    table_require(snprintf(url, FIXTURE_URL_MAX, "%s", server) < FIXTURE_URL_MAX,
                  "a shorter LONELY_STORE_URL");
    if (places++ == 0)
        rqlite_tool_run("[\"DROP TABLE IF EXISTS " EXACTS "\",\"DROP TABLE IF EXISTS " GLOBS "\","
                        "\"DROP TABLE IF EXISTS lonely_changes\","
                        "\"DROP TABLE IF EXISTS lonely_hmacs\","
                        "\"DROP TABLE IF EXISTS lonely_processes\","
                        "\"DROP TABLE IF EXISTS lonely_schema\"]");
}

void place_rqlite_unmake(const char *server, const char *url)
{
    (void)server;
    (void)url;
    places--;
}
