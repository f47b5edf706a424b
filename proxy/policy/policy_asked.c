/* What rules ask about, by name; and which policy this is. */
#include <postern/policy_asked.h>

#include "policy_hash.h"

#include <string.h>

static bool asks(const struct policy *p, enum dim dim, struct str name)
{
    return p != NULL && p->asks[dim] && policy_match_name(&p->table, dim, name) != KEY_NONE;
}

bool policy_asks_header(const struct policy *p, struct str name)
{
    return asks(p, DIM_HEADER, name);
}

bool policy_asks_claim(const struct policy *p, struct str name)
{
    return asks(p, DIM_CLAIM, name);
}

/* A name that nobody can read is asked about: with it nothing is known of the query. */
bool policy_asks_parameter(const struct policy *p, struct str name)
{
    char room[QUERY_ROOM];
    size_t used = 0;
    struct str decoded;
    if (p == NULL || !p->asks[DIM_QUERY]) {
        return false;
    }
    return !policy_query_decode(name, room, sizeof(room), &used, &decoded) ||
           asks(p, DIM_QUERY, decoded);
}

static void mix(uint64_t *h, const void *bytes, size_t n)
{
    const uint8_t *p = (const uint8_t *)bytes;
    for (size_t i = 0; i < n; i++) {
        *h = (*h ^ p[i]) * UINT64_C(0x100000001b3);
    }
}

uint64_t policy_fingerprint(const struct policy *p)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    mix(&h, &p->n_rules, sizeof(p->n_rules));
    for (uint32_t i = 0; i < p->n_rules; i++) {
        const struct rule *r = &p->rules[i];
        mix(&h, &r->key, sizeof(r->key));
        mix(&h, &r->line, sizeof(r->line));
        mix(&h, r->name, strlen(r->name) + 1);
        mix(&h, r->reason != NULL ? r->reason : "", r->reason != NULL ? strlen(r->reason) + 1 : 0);
    }
    return h;
}
