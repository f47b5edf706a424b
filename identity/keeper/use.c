/* Which authority the SVIDs that are out there stand under: for each live caller the newest of each
 * of its identities; for those that are gone the last end. */
#include "keeper_priv.h"

#include <stdlib.h>
#include <string.h>

enum { N_BUCKETS = 1024, GONE_MAX = 2 * KEEPER_RECORDS_MAX };

struct use {
    struct use *next;
    uint64_t handle, identity, authority;
    int64_t until_s;
};

struct gone {
    uint64_t authority;
    int64_t until_s;
    bool inherited;
};

struct keeper_uses {
    struct use *by_handle[N_BUCKETS];
    struct gone gone[GONE_MAX];
};

/* FNV-1a: ids of one process's own making, told apart and no more. */
uint64_t keeper_use_tag(const char *text)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (; *text != 0; text++) {
        h = (h ^ (uint8_t)*text) * UINT64_C(1099511628211);
    }
    return h;
}

struct keeper_uses *keeper_uses_new(void)
{
    return mem_must_new(struct keeper_uses);
}

struct keeper_uses *keeper_uses_free(struct keeper_uses *u)
{
    for (size_t i = 0; u != NULL && i < N_BUCKETS; i++) {
        while (u->by_handle[i] != NULL) {
            struct use *use = u->by_handle[i];

            u->by_handle[i] = use->next;
            free(use);
        }
    }
    free(u);
    return NULL;
}

void keeper_uses_note(struct keeper_uses *u, uint64_t handle, uint64_t identity, uint64_t authority,
                      int64_t until_s)
{
    struct use **bucket = &u->by_handle[handle % N_BUCKETS];
    struct use *use = *bucket;

    while (use != NULL && (use->handle != handle || use->identity != identity)) {
        use = use->next;
    }
    if (use == NULL) {
        use = mem_must_new(struct use);
        use->handle = handle;
        use->identity = identity;
        use->next = *bucket;
        *bucket = use;
    }
    use->authority = authority;
    use->until_s = until_s;
}

/* The room is as large as there can be authorities, and one that ended long ago makes place. One
 * that signed before this process began has no end that is known here: it is the last to go. */
static bool goes_before(const struct gone *a, const struct gone *b)
{
    if ((a->authority == 0) != (b->authority == 0)) {
        return a->authority == 0; /* free */
    }
    return a->inherited != b->inherited ? b->inherited : a->until_s < b->until_s;
}

static struct gone *place_of(struct keeper_uses *u, uint64_t authority)
{
    struct gone *place = &u->gone[0];

    for (size_t i = 0; i < GONE_MAX; i++) {
        struct gone *g = &u->gone[i];

        if (g->authority == authority) {
            return g;
        }
        if (goes_before(g, place)) {
            place = g;
        }
    }
    *place = (struct gone){.authority = authority};
    return place;
}

void keeper_uses_assume(struct keeper_uses *u, uint64_t authority, int64_t until_s)
{
    struct gone *g = place_of(u, authority);

    g->until_s = until_s > g->until_s ? until_s : g->until_s;
}

void keeper_uses_inherit(struct keeper_uses *u, uint64_t authority)
{
    place_of(u, authority)->inherited = true;
}

void keeper_uses_gone(struct keeper_uses *u, uint64_t handle)
{
    struct use **at = &u->by_handle[handle % N_BUCKETS];

    while (*at != NULL) {
        struct use *use = *at;

        if (use->handle != handle) {
            at = &use->next;
            continue;
        }
        keeper_uses_assume(u, use->authority, use->until_s);
        *at = use->next;
        free(use);
    }
}

struct keeper_use keeper_uses_of(const struct keeper_uses *u, uint64_t authority, int64_t now_s)
{
    struct keeper_use found = {.n_callers = 0};

    for (size_t i = 0; i < N_BUCKETS; i++) {
        for (const struct use *use = u->by_handle[i]; use != NULL; use = use->next) {
            found.n_callers += use->authority == authority && use->until_s > now_s ? 1 : 0;
        }
    }
    for (size_t i = 0; i < GONE_MAX; i++) {
        if (u->gone[i].authority == authority) {
            found.until_s = u->gone[i].until_s;
            found.inherited = u->gone[i].inherited;
        }
    }
    return found;
}
