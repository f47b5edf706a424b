/*
 * What time does to snapshots. A rule that ends takes effect like a change of the policy: workers
 * get a snapshot that differs by nothing else, and look at the connections that it concerns. And a
 * snapshot that is used no more is freed here: a policy of many rules is many pages, which no
 * worker shall give back while connections wait.
 */
#include "proxy_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>

enum {
    NEAR_MS = 100,  /* how often the clock is read in the last second */
    FAR_MS = 60000, /* and before, since the clock of the wall may be put right */
    SWEEP_MS = 1000,
};

static void arm_expiry(struct proxy *p)
{
    int64_t now_s = os_wall_s();
    int64_t next_s = snapshot_next_expiry(p->snapshot, p->snapshot->at_s);
    if (next_s == 0) {
        loop_timer_disarm(&p->expiry_timer);
        return;
    }
    /* Seconds are cut: the last one is waited for in small steps. */
    int64_t whole_s = next_s - now_s - 1;
    uint64_t delay_ms = whole_s > FAR_MS / 1000 ? FAR_MS
                        : whole_s > 0           ? (uint64_t)whole_s * 1000
                                                : NEAR_MS;
    loop_timer_arm(&p->expiry_timer, delay_ms);
}

static void on_expiry(void *arg)
{
    struct proxy *p = (struct proxy *)arg;
    int64_t next_s = snapshot_next_expiry(p->snapshot, p->snapshot->at_s);
    if (next_s != 0 && os_wall_s() >= next_s) {
        proxy_publish(p);
    } else {
        arm_expiry(p);
    }
}

/* --- those that were ---------------------------------------------------------------------------*/

static void sweep(void *arg)
{
    struct proxy *p = (struct proxy *)arg;
    size_t n = 0;
    for (size_t i = 0; i < p->n_retired; i++) {
        if (snapshot_is_last(p->retired[i])) {
            snapshot_unref(p->retired[i]);
        } else {
            p->retired[n++] = p->retired[i];
        }
    }
    p->n_retired = n;
    if (n > 0) {
        loop_timer_arm(&p->retired_timer, SWEEP_MS);
    }
}

static void retire(struct proxy *p, struct snapshot *s)
{
    p->retired = mem_must_realloc(p->retired, (p->n_retired + 1) * sizeof(struct snapshot *));
    p->retired[p->n_retired++] = s;
    loop_timer_arm(&p->retired_timer, SWEEP_MS);
}

/* --- the whole ---------------------------------------------------------------------------------*/

void proxy_snapshots_init(struct proxy *p)
{
    loop_timer_init(&p->expiry_timer, p->loop, on_expiry, p);
    loop_timer_init(&p->retired_timer, p->loop, sweep, p);
}

void proxy_snapshots_use(struct proxy *p, struct snapshot *next)
{
    if (p->snapshot != NULL) {
        retire(p, p->snapshot);
    }
    p->snapshot = next;
    arm_expiry(p);
}

void proxy_snapshots_deinit(struct proxy *p)
{
    if (p->loop != NULL) {
        loop_timer_disarm(&p->expiry_timer);
        loop_timer_disarm(&p->retired_timer);
    }
    for (size_t i = 0; i < p->n_retired; i++) {
        snapshot_unref(p->retired[i]);
    }
    free(p->retired);
    p->retired = NULL;
    p->n_retired = 0;
}
