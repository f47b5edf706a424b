#include "attestor_priv.h"

#include <postern/mem.h>
#include <stdlib.h>

enum { N_BUCKETS = 4096, N_COUNT_BUCKETS = 256, FIRST_HANDLE = 16 /* below: tags of the loop */ };

struct account {
    struct account *next;
    uint64_t id;
    size_t n;
};

struct attestor_callers {
    struct attestor_caller *by_handle[N_BUCKETS];
    struct account *by_account[N_COUNT_BUCKETS];
    size_t n, max, max_account;
    size_t any_from; /* where attestor_callers_any begins to look */
    uint64_t next_handle;
};

struct attestor_callers *attestor_callers_new(size_t max, size_t max_account)
{
    struct attestor_callers *cs = mem_must_new(struct attestor_callers);

    cs->max = max;
    cs->max_account = max_account;
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

uint64_t attestor_account(const struct attest_facts *facts)
{
    return agent_account(facts->contained, str_of(facts->cgroup.container_id),
                         str_of(facts->cgroup.unit), facts->uid);
}

static struct account *count_find(const struct attestor_callers *cs, uint64_t account)
{
    struct account *u = cs->by_account[account % N_COUNT_BUCKETS];

    while (u != NULL && u->id != account) {
        u = u->next;
    }
    return u;
}

bool attestor_callers_may_add(const struct attestor_callers *cs, uint64_t account,
                              const char **ret_why)
{
    const struct account *u = count_find(cs, account);

    if (cs->n >= cs->max) {
        *ret_why = "too many connections";
        return false;
    }
    if (u != NULL && u->n >= cs->max_account) {
        *ret_why = "too many connections of this uid or container";
        return false;
    }
    return true;
}

static void count_add(struct attestor_callers *cs, uint64_t account)
{
    struct account *u = count_find(cs, account);

    if (u == NULL) {
        u = mem_must_new(struct account);
        u->id = account;
        u->next = cs->by_account[account % N_COUNT_BUCKETS];
        cs->by_account[account % N_COUNT_BUCKETS] = u;
    }
    u->n++;
}

static void count_remove(struct attestor_callers *cs, uint64_t account)
{
    struct account **at = &cs->by_account[account % N_COUNT_BUCKETS];

    while ((*at)->id != account) {
        at = &(*at)->next;
    }
    if (--(*at)->n == 0) {
        struct account *u = *at;

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
    c->account = attestor_account(facts);
    c->start_time = facts->start_time;
    c->next = cs->by_handle[c->handle % N_BUCKETS];
    cs->by_handle[c->handle % N_BUCKETS] = c;
    cs->n++;
    count_add(cs, c->account);
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
    count_remove(cs, c->account);
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
