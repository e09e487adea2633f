/*
 * Where webhooks may go: [webhook] allow and deny, applied to addresses and to URLs.
 *
 * Threads: immutable once made; any thread.
 */
#ifndef POLICY_H
#define POLICY_H

#include <stdbool.h>
#include <sys/socket.h>

#include <lonely/span.h>

#include "conf.h"

struct policy;

/* The items of the lists are ranges, as conf.c has checked. */
struct policy *policy_create(const struct conf_list *allow, const struct conf_list *deny);
void policy_destroy(struct policy *p); /* NULL is allowed */

/*
 * May this address be connected to? The longest range that holds it decides, deny on a tie; one that
 * no range holds may not. Addresses that carry an IPv4 address are judged as that (cidr.h).
 */
bool policy_allows(const struct policy *p, const struct sockaddr *address);

enum policy_verdict {
    POLICY_LATER, /* a name, or not a URL that could be posted to: judged when connecting, if ever */
    POLICY_ALLOW,  /* an address, and it may be connected to */
    POLICY_SCHEME, /* an absolute URL, but neither http nor https */
    POLICY_ADDRESS /* an address that may not be connected to, however it is written */
};

/* What can be said of a URL without looking names up. The host is read as a delivery would read it. */
enum policy_verdict policy_judge_url(const struct policy *p, struct lonely_span url);

#endif
