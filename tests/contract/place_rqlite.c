/*
 * The whole database of an rqlite server, emptied (fixture_places.h). The first node of several is
 * asked, which forwards.
 */
#include <stdio.h>

#include <curl/curl.h>

#include "fixture_places.h"
#include "tables.h"

static int places; /* in use */

static size_t ignore(char *ptr, size_t size, size_t n, void *arg)
{
    (void)ptr;
    (void)arg;
    return size * n;
}

static void run(const char *server, const char *statements)
{
    CURL *easy = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    char url[FIXTURE_URL_MAX];
    long status = 0;

    snprintf(url, sizeof url, "%s/db/execute", server);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, statements);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, ignore);
    table_require(curl_easy_perform(easy) == CURLE_OK, url);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    table_require(status == 200, url);
    curl_slist_free_all(headers);
    curl_easy_cleanup(easy);
}

void place_rqlite_make(const char *server, char url[FIXTURE_URL_MAX])
{
    table_require(snprintf(url, FIXTURE_URL_MAX, "%s", server) < FIXTURE_URL_MAX,
                  "a shorter LONELY_STORE_URL");
    if (places++ == 0)
        run(server, "[\"DROP TABLE IF EXISTS httppubsub_subscription_exacts\","
                    "\"DROP TABLE IF EXISTS httppubsub_subscription_globs\","
                    "\"DROP TABLE IF EXISTS lonely_changes\",\"DROP TABLE IF EXISTS lonely_hmacs\","
                    "\"DROP TABLE IF EXISTS lonely_processes\","
                    "\"DROP TABLE IF EXISTS lonely_schema\"]");
}

void place_rqlite_unmake(const char *server, const char *url)
{
    (void)server;
    (void)url;
    places--;
}
