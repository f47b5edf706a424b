/* The addresses that are known, immutable. */
#include <postern/resolve.h>

#include "resolve_wire.h"

#include <stdlib.h>
#include <string.h>

struct resolve_state *resolve_state_ref(struct resolve_state *s)
{
    POSTERN_ASSERT(atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed) > 0);
    return s;
}

struct resolve_state *resolve_state_unref(struct resolve_state *s)
{
    if (s != NULL && atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        for (size_t i = 0; i < s->n_hosts; i++) {
            free(s->hosts[i].host);
            free(s->hosts[i].addrs);
        }
        free(s->hosts);
        free(s);
    }
    return NULL;
}

static int compare(const void *key, const void *element)
{
    const struct resolve_host *h = (const struct resolve_host *)element;
    return strcmp((const char *)key, h->host);
}

const struct resolve_host *resolve_state_find(const struct resolve_state *s, const char *host)
{
    if (s == NULL || s->n_hosts == 0) {
        return NULL;
    }
    return (const struct resolve_host *)bsearch(host, s->hosts, s->n_hosts, sizeof(*s->hosts),
                                                compare);
}

bool resolve_state_complete(const struct resolve_state *s)
{
    for (size_t i = 0; s != NULL && i < s->n_hosts; i++) {
        if (s->hosts[i].n_addrs == 0) {
            return false;
        }
    }
    return true;
}

bool resolve_host_ok(struct str host)
{
    for (size_t i = 0; i < host.n; i++) {
        char c = host.p[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                  (c == '.' && i > 0 && host.p[i - 1] != '.');
        if (!ok) {
            return false;
        }
    }
    return host.n > 0 && host.n <= RESOLVE_HOST_MAX && host.p[0] != '-';
}
