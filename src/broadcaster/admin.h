/*
 * The admin listener: GET /healthz, /readyz and /metrics, on an address of its own, never on the
 * public ones.
 *
 * It has a thread and a loop of its own: so it answers while the workers drain, until the last one has
 * ended, and can tell that a worker's loop is stuck; and making the text of the metrics delays no
 * notify.
 */
#ifndef ADMIN_H
#define ADMIN_H

#include <stdbool.h>

#include "broadcaster.h"

struct admin;

/* Opens broadcaster.admin_listen, when there are store, bodies and workers. false: `error`. */
bool admin_create(struct broadcaster *b, struct admin **out, char error[256]);
/* Starts its thread. false: `error`. */
bool admin_start(struct admin *a, char error[256]);
/* Ends its thread, if it was started. To be called once all workers have ended. NULL is allowed. */
void admin_join(struct admin *a);
/* Frees; after admin_join, or instead of admin_start. NULL is allowed. */
void admin_destroy(struct admin *a);

/* The address really bound. */
const char *admin_bound(const struct admin *a);

#endif
