#include "keeper_priv.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_BUCKETS = 4096, N_ACCOUNT_BUCKETS = 1024 };

/* What one uid, or one container, has of us. Outlives its handles until its bucket is full again,
 * so that closing a connection and opening another does not refill it. */
struct keeper_account {
    struct keeper_account *next;
    uint64_t id; /* agent_account */
    size_t n_handles;
    struct keeper_bucket bucket;
};

struct keeper_callers {
    struct keeper_caller *by_handle[N_BUCKETS];
    struct keeper_account *by_account[N_ACCOUNT_BUCKETS];
    size_t n, max, max_uid;
    uint64_t burst, per_s; /* of an account's bucket */
    uint64_t n_states;     /* of all callers' facts so far */
    uint64_t last_handle;  /* handles only grow: none is ever used twice */
};

struct keeper_callers *keeper_callers_new(const struct agent_msg_start_keeper *start)
{
    struct keeper_callers *cs = mem_must_new(struct keeper_callers);

    cs->max = start->max_handles;
    cs->max_uid = start->max_uid_handles;
    cs->burst = start->uid_issue_burst > 0 ? start->uid_issue_burst : 1;
    cs->per_s = start->uid_issue_per_s > 0 ? start->uid_issue_per_s : 1;
    return cs;
}

static void caller_free(struct keeper_caller *c)
{
    close(c->pidfd);
    free(c->facts_space);
    free(c);
}

struct keeper_callers *keeper_callers_free(struct keeper_callers *cs)
{
    if (cs == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < N_BUCKETS; i++) {
        while (cs->by_handle[i] != NULL) {
            struct keeper_caller *c = cs->by_handle[i];

            cs->by_handle[i] = c->next;
            caller_free(c);
        }
    }
    for (size_t i = 0; i < N_ACCOUNT_BUCKETS; i++) {
        while (cs->by_account[i] != NULL) {
            struct keeper_account *a = cs->by_account[i];

            cs->by_account[i] = a->next;
            free(a);
        }
    }
    free(cs);
    return NULL;
}

/* --- limits ----------------------------------------------------------------------------------- */
static void bucket_refill(struct keeper_bucket *b, uint64_t now_ms, uint64_t burst, uint64_t per_s)
{
    uint64_t passed = now_ms > b->at_ms ? now_ms - b->at_ms : 0;

    /* a millisecond brings per_s thousandths of a token */
    if (passed >= burst * 1000 / per_s || b->milli + passed * per_s >= burst * 1000) {
        b->milli = burst * 1000;
    } else {
        b->milli += passed * per_s;
    }
    b->at_ms = now_ms;
}

bool keeper_caller_charge(struct keeper_callers *cs, struct keeper_caller *c, uint64_t now_ms)
{
    struct keeper_bucket *b = &c->account->bucket;

    bucket_refill(b, now_ms, cs->burst, cs->per_s);
    if (b->milli < 1000) {
        return false;
    }
    b->milli -= 1000;
    return true;
}

/* Finds or makes an account, and on the way drops those of others that nobody needs. */
static struct keeper_account *account_get(struct keeper_callers *cs, uint64_t id, uint64_t now_ms)
{
    struct keeper_account **at = &cs->by_account[id % N_ACCOUNT_BUCKETS];
    struct keeper_account *found = NULL;

    while (*at != NULL) {
        struct keeper_account *a = *at;

        bucket_refill(&a->bucket, now_ms, cs->burst, cs->per_s);
        if (a->id == id) {
            found = a;
        } else if (a->n_handles == 0 && a->bucket.milli == cs->burst * 1000) {
            *at = a->next;
            free(a);
            continue;
        }
        at = &a->next;
    }
    if (found == NULL) {
        found = mem_must_new(struct keeper_account);
        found->id = id;
        found->bucket = (struct keeper_bucket){.milli = cs->burst * 1000, .at_ms = now_ms};
        found->next = cs->by_account[id % N_ACCOUNT_BUCKETS];
        cs->by_account[id % N_ACCOUNT_BUCKETS] = found;
    }
    return found;
}

/* --- the table -------------------------------------------------------------------------------- */
static void take_facts(struct keeper_callers *cs, struct keeper_caller *c,
                       const struct agent_msg_caller *msg)
{
    struct keeper_facts facts;
    uint8_t *space;
    size_t size;

    keeper_facts_take(msg, &facts, &space, &size);
    /* Numbers and flags are in the space too: see keeper_facts_take. */
    if (c->facts_space != NULL && c->facts_size == size &&
        memcmp(c->facts_space, space, size) == 0) {
        facts.state = c->facts.state;
    } else {
        facts.state = ++cs->n_states;
        c->facts_count++;
    }
    free(c->facts_space);
    c->facts = facts;
    c->facts_space = space;
    c->facts_size = size;
    c->read_ms = msg->read_ms;
}

bool keeper_callers_add(struct keeper_callers *cs, const struct agent_msg_caller *msg, int pidfd,
                        uint64_t now_ms)
{
    struct keeper_account *account;
    struct keeper_caller *c;

    if (msg->handle <= cs->last_handle || cs->n >= cs->max) {
        close(pidfd);
        return false;
    }
    account = account_get(cs,
                          agent_account(msg->contained,
                                        (struct str){msg->container_id, msg->container_id_len},
                                        (struct str){msg->unit, msg->unit_len}, msg->uid),
                          now_ms);
    if (account->n_handles >= cs->max_uid) {
        close(pidfd);
        return false;
    }
    c = mem_must_new(struct keeper_caller);
    c->handle = msg->handle;
    c->pidfd = pidfd;
    c->pid = msg->pid;
    c->account = account;
    take_facts(cs, c, msg);
    c->next = cs->by_handle[c->handle % N_BUCKETS];
    cs->by_handle[c->handle % N_BUCKETS] = c;
    cs->last_handle = c->handle;
    cs->n++;
    account->n_handles++;
    return true;
}

struct keeper_caller *keeper_callers_find(struct keeper_callers *cs, uint64_t handle)
{
    struct keeper_caller *c = cs->by_handle[handle % N_BUCKETS];

    while (c != NULL && c->handle != handle) {
        c = c->next;
    }
    return c;
}

bool keeper_callers_update(struct keeper_callers *cs, const struct agent_msg_caller *msg)
{
    struct keeper_caller *c = keeper_callers_find(cs, msg->handle);

    if (c == NULL) {
        return false;
    }
    take_facts(cs, c, msg);
    return true;
}

void keeper_callers_remove(struct keeper_callers *cs, uint64_t handle)
{
    struct keeper_caller **at = &cs->by_handle[handle % N_BUCKETS];

    while (*at != NULL && (*at)->handle != handle) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        struct keeper_caller *c = *at;

        *at = c->next;
        cs->n--;
        c->account->n_handles--;
        caller_free(c);
    }
}

bool keeper_caller_alive(const struct keeper_caller *c)
{
    struct pollfd p = {.fd = c->pidfd, .events = POLLIN};

    return poll(&p, 1, 0) == 0;
}
