/* The outage budget (docs/authority.md): how long this node goes on without whatever is above it.
 */
#include "keeper_priv.h"

#include <postern/os.h>

struct keeper_budget keeper_budget_get(const struct keeper *k)
{
    const struct keeper_force *f = k->authority.force;
    struct keeper_budget b = {.until_s = f->issuer_not_after_s,
                              .life_s = f->issuer_not_after_s - f->issuer_not_before_s,
                              .ends_first = k->authority.disk != NULL ? AGENT_OUTAGE_AUTHORITY
                                                                      : AGENT_OUTAGE_ROOT};
    const struct keeper_record *next = keeper_store_find(&f->store, KEEPER_X509, KEEPER_PREPARED);

    /* One's own successor needs nobody. */
    if (k->authority.disk == NULL && next != NULL && next->not_after_s > b.until_s) {
        b.until_s = next->not_after_s;
        b.life_s = next->not_after_s - next->created_s;
    }
    /* A token may stay away: then the node's intermediate is the last. */
    if (f->issuer_in_token && f->node_not_after_s < b.until_s) {
        b.until_s = f->node_not_after_s;
        b.life_s = f->node_not_after_s - f->node_not_before_s;
        b.ends_first = AGENT_OUTAGE_TOKEN;
    }
    if (f->bundle_not_after_s < b.until_s) {
        b.until_s = f->bundle_not_after_s;
        b.ends_first = AGENT_OUTAGE_BUNDLE;
    }
    return b;
}

void keeper_budget_watch(struct keeper *k)
{
    struct keeper_budget b = keeper_budget_get(k);
    int64_t left_s = b.until_s - keeper_clock_wall_s(&k->clock);
    int64_t warn_s = b.life_s / 6 < k->outage_warn_s ? b.life_s / 6 : k->outage_warn_s;
    struct log_line l;
    char when[32];

    if ((left_s < warn_s) == k->budget_is_low) {
        return;
    }
    k->budget_is_low = left_s < warn_s;
    os_time_text(b.until_s, when, sizeof(when));
    log_begin(&l, k->log, k->budget_is_low ? LOG_WARN : LOG_INFO,
              k->budget_is_low ? "outage_budget_low" : "outage_budget_restored");
    log_int(&l, "seconds", left_s);
    log_str(&l, "ends_first", agent_outage_name(b.ends_first));
    log_str(&l, "until", when);
    log_end(&l);
}
