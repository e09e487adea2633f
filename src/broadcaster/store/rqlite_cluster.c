/*
 * The nodes of database.url (rqlite_conn.h). Called when the store is opened.
 */
#include <stdio.h>
#include <string.h>

#include "mem.h"
#include "rqlite_conn.h"
#include "store_password.h"

#define DEFAULT_PORT "4001" /* rqlite's */

/* The part, for mem_free; NULL: there is none. */
static char *part_of(CURLU *url, CURLUPart part, unsigned flags)
{
    char *text = NULL;
    char *own;

    if (curl_url_get(url, part, &text, flags) != CURLUE_OK || text == NULL)
        return NULL;
    own = mem_strdup(text);
    curl_free(text);
    return own;
}

static char *base_of(CURLU *url)
{
    char *scheme = part_of(url, CURLUPART_SCHEME, 0);
    char *host = part_of(url, CURLUPART_HOST, 0);
    char *port = part_of(url, CURLUPART_PORT, 0);
    char *base = NULL;

    if (scheme != NULL && host != NULL &&
        (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0)) {
        size_t size = strlen(scheme) + strlen(host) + (port == NULL ? 4 : strlen(port)) + 5;

        base = mem_alloc(size);
        snprintf(base, size, "%s://%s:%s", scheme, host, port == NULL ? DEFAULT_PORT : port);
    }
    mem_free(scheme);
    mem_free(host);
    mem_free(port);
    return base;
}

/* "?ca=PATH" is all that may follow the address. It counts for all nodes. */
static bool read_query(struct rqlite_cluster *c, CURLU *url, bool is_tls)
{
    char *query = part_of(url, CURLUPART_QUERY, CURLU_URLDECODE);
    bool good = query == NULL;

    if (query != NULL && is_tls && strncmp(query, "ca=", 3) == 0 && query[3] != '\0') {
        good = c->ca_file == NULL || strcmp(c->ca_file, query + 3) == 0;
        if (c->ca_file == NULL)
            c->ca_file = mem_strdup(query + 3);
    }
    mem_free(query);
    return good;
}

static bool is_bare(CURLU *url)
{
    char *path = part_of(url, CURLUPART_PATH, 0);
    char *fragment = part_of(url, CURLUPART_FRAGMENT, 0);
    bool bare = (path == NULL || strcmp(path, "/") == 0) && fragment == NULL;

    mem_free(path);
    mem_free(fragment);
    return bare;
}

static bool parse_node(struct rqlite_cluster *c, struct rqlite_node *n, CURLU *url,
                       const char *text)
{
    *n = (struct rqlite_node){ 0 };
    if (curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
        return false;
    n->base = base_of(url);
    if (n->base == NULL || !is_bare(url) || !read_query(c, url, strncmp(n->base, "https:", 6) == 0))
        return false;
    n->user = part_of(url, CURLUPART_USER, CURLU_URLDECODE);
    n->password = part_of(url, CURLUPART_PASSWORD, CURLU_URLDECODE);
    return true;
}

bool rqlite_cluster_init(struct rqlite_cluster *c, const struct store_conf *conf, char error[256])
{
    bool has_user = false;

    *c = (struct rqlite_cluster){ .log = conf->log,
                                  .timeout_ms = conf->timeout_ms,
                                  .weak = conf->rqlite_weak };
    if (conf->password_file != NULL)
        c->password_file = mem_strdup(conf->password_file);
    c->nodes = mem_calloc(conf->n_urls + 1, sizeof *c->nodes);
    for (; c->count < conf->n_urls; c->count++) {
        CURLU *url = curl_url();
        bool good = url != NULL && parse_node(c, &c->nodes[c->count], url, conf->urls[c->count]);

        curl_url_cleanup(url);
        if (!good) {
            snprintf(error, 256,
                     "database.url, number %zu: not http(s)://[USER[:PASSWORD]@]HOST"
                     "[:PORT], with https also ?ca=PATH, the same for all",
                     c->count + 1);
            c->count++;
            rqlite_cluster_fini(c);
            return false;
        }
        has_user = has_user || c->nodes[c->count].user != NULL;
    }
    if (c->count == 0 || (conf->password_file != NULL && !has_user)) {
        snprintf(error, 256, "%s",
                 c->count == 0 ? "rqlite: database.url names no node"
                               : "rqlite: there is a password file, but no "
                                 "user name in database.url");
        rqlite_cluster_fini(c);
        return false;
    }
    return true;
}

void rqlite_cluster_fini(struct rqlite_cluster *c)
{
    for (size_t i = 0; i < c->count; i++) {
        mem_free(c->nodes[i].base);
        mem_free(c->nodes[i].user);
        store_password_free(c->nodes[i].password);
    }
    mem_free(c->nodes);
    mem_free(c->password_file);
    mem_free(c->ca_file);
    *c = (struct rqlite_cluster){ 0 };
}
