#include "attestor_priv.h"

#include <postern/mem.h>
#include <stdlib.h>

enum { N_BUCKETS = 4096, N_COUNT_BUCKETS = 256, FIRST_HANDLE = 16 /* below: tags of the loop */ };

struct uid_count {
    struct uid_count *next;
    uint32_t uid;
    size_t n;
};

struct attestor_callers {
    struct attestor_caller *by_handle[N_BUCKETS];
    struct uid_count *by_uid[N_COUNT_BUCKETS];
    size_t n, max, max_uid;
    size_t any_from; /* where attestor_callers_any begins to look */
    uint64_t next_handle;
};

struct attestor_callers *attestor_callers_new(size_t max, size_t max_uid)
{
    struct attestor_callers *cs = mem_must_new(struct attestor_callers);

    cs->max = max;
    cs->max_uid = max_uid;
    cs->next_handle = FIRST_HANDLE;
    return cs;
}

struct attestor_callers *attestor_callers_free(struct attestor_callers *cs)
{
    struct attestor_caller *c;

    if (cs == NULL) {
        return NULL;
    }
    while ((c = attestor_callers_any(cs)) != NULL) {
        attestor_callers_remove(cs, c);
    }
    free(cs);
    return NULL;
}

size_t attestor_callers_count(const struct attestor_callers *cs)
{
    return cs->n;
}

static struct uid_count *count_find(const struct attestor_callers *cs, uint32_t uid)
{
    struct uid_count *u = cs->by_uid[uid % N_COUNT_BUCKETS];

    while (u != NULL && u->uid != uid) {
        u = u->next;
    }
    return u;
}

bool attestor_callers_may_add(const struct attestor_callers *cs, uint32_t uid, const char **ret_why)
{
    const struct uid_count *u = count_find(cs, uid);

    if (cs->n >= cs->max) {
        *ret_why = "too many connections";
        return false;
    }
    if (u != NULL && u->n >= cs->max_uid) {
        *ret_why = "too many connections of this uid";
        return false;
    }
    return true;
}

static void count_add(struct attestor_callers *cs, uint32_t uid)
{
    struct uid_count *u = count_find(cs, uid);

    if (u == NULL) {
        u = mem_must_new(struct uid_count);
        u->uid = uid;
        u->next = cs->by_uid[uid % N_COUNT_BUCKETS];
        cs->by_uid[uid % N_COUNT_BUCKETS] = u;
    }
    u->n++;
}

static void count_remove(struct attestor_callers *cs, uint32_t uid)
{
    struct uid_count **at = &cs->by_uid[uid % N_COUNT_BUCKETS];

    while ((*at)->uid != uid) {
        at = &(*at)->next;
    }
    if (--(*at)->n == 0) {
        struct uid_count *u = *at;

        *at = u->next;
        free(u);
    }
}

struct attestor_caller *attestor_callers_add(struct attestor_callers *cs,
                                             const struct attest_process *p,
                                             const struct attest_facts *facts)
{
    struct attestor_caller *c = mem_must_new(struct attestor_caller);

    c->handle = cs->next_handle++;
    c->process = *p;
    c->account_uid = facts->uid;
    c->start_time = facts->start_time;
    c->next = cs->by_handle[c->handle % N_BUCKETS];
    cs->by_handle[c->handle % N_BUCKETS] = c;
    cs->n++;
    count_add(cs, c->account_uid);
    return c;
}

struct attestor_caller *attestor_callers_find(struct attestor_callers *cs, uint64_t handle)
{
    struct attestor_caller *c = cs->by_handle[handle % N_BUCKETS];

    while (c != NULL && c->handle != handle) {
        c = c->next;
    }
    return c;
}

void attestor_callers_remove(struct attestor_callers *cs, struct attestor_caller *c)
{
    struct attestor_caller **at = &cs->by_handle[c->handle % N_BUCKETS];

    while (*at != c) {
        at = &(*at)->next;
    }
    *at = c->next;
    cs->n--;
    count_remove(cs, c->account_uid);
    attest_process_close(&c->process);
    free(c);
}

struct attestor_caller *attestor_callers_any(struct attestor_callers *cs)
{
    for (size_t i = 0; cs->n > 0 && i < N_BUCKETS; i++) {
        size_t at = (cs->any_from + i) % N_BUCKETS;

        if (cs->by_handle[at] != NULL) {
            cs->any_from = at;
            return cs->by_handle[at];
        }
    }
    return NULL;
}
