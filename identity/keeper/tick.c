/* What time brings: the node's intermediate, the schedule of authorities, and the wall clock
 * itself, which may be set (docs/authority.md, "Times"). */
#include "keeper_priv.h"

#include <postern/os.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    FIRST_PAUSE_MS = 1000,  /* after a renewal that failed; doubled up to the next */
    CHECK_MS = 30000,       /* the longest time without a look at the clock */
    JUMP_S = 5,             /* of the wall clock against the other one */
    REANCHOR_MS = 60000,    /* so that a clock that is slewed never adds up to a jump */
    STEADY_MAX_MS = 600000, /* the time without a jump before something irrevocable is done */
};

/* --- waking ------------------------------------------------------------------------------------
 */
int keeper_timer_new(struct err *err)
{
    int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);

    if (fd == -1) {
        err_sys(err, "timerfd");
    }
    return fd;
}

/* At that time of the wall clock, in suspend or not; and when the clock is set. poll()'s own time
 * stands still in suspend, and knows nothing of the clock. */
void keeper_timer_arm(struct keeper *k, bool fired)
{
    int64_t at_s = keeper_clock_wall_s(&k->clock) + keeper_wake_ms(k) / 1000 + 1;
    struct itimerspec when = {.it_value = {.tv_sec = at_s}};
    uint64_t count;

    if (fired) {
        (void)!read(k->timer, &count, sizeof(count)); /* ECANCELED: the clock was set */
    } else if (at_s == k->timer_s) {
        return;
    }
    k->timer_s = at_s;
    (void)timerfd_settime(k->timer, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &when, NULL);
}

int keeper_wake_ms(const struct keeper *k)
{
    static const enum keeper_kind kinds[] = {KEEPER_X509, KEEPER_JWT};
    int64_t now_s = keeper_clock_wall_s(&k->clock), due_s;
    uint64_t now_ms = keeper_clock_now_ms(&k->clock);
    enum keeper_step step;
    int ms = CHECK_MS;

    if (!k->started) {
        return ms;
    }
    due_s = k->authority.force->node_renew_s;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        int64_t at_s = keeper_rotation_next_s(&k->authority.force->store, kinds[i], &step);

        if (at_s < due_s && keeper_makes(k, kinds[i])) {
            due_s = at_s;
        }
    }
    if (due_s - now_s < ms / 1000) {
        ms = due_s > now_s ? (int)(due_s - now_s) * 1000 : 0;
    }
    if (ms < 1000) { /* due: at once, unless it was tried, or waits for the clock to be steady */
        bool waits =
            keeper_steady_in_ms(k, KEEPER_X509) > 0 || keeper_steady_in_ms(k, KEEPER_JWT) > 0;

        if (k->renew_retry_ms > now_ms || k->rotation_retry_ms > now_ms || waits ||
            k->change.phase != KEEPER_CHANGE_NONE) {
            ms = 1000;
        }
    }
    return ms;
}

/* --- the clock ---------------------------------------------------------------------------------
 */
uint64_t keeper_steady_in_ms(const struct keeper *k, enum keeper_kind kind)
{
    uint32_t life_s = kind == KEEPER_X509 ? k->authority.root_ttl_s : k->jwt.key_ttl_s;
    uint64_t hold_ms = (uint64_t)life_s * 100; /* a tenth of it */
    uint64_t since_ms = keeper_clock_now_ms(&k->clock) - k->pace.steady_ms;

    hold_ms = hold_ms < STEADY_MAX_MS ? hold_ms : STEADY_MAX_MS;
    return since_ms < hold_ms ? hold_ms - since_ms : 0;
}

void keeper_pace_start(struct keeper *k)
{
    k->pace.wall_s = keeper_clock_wall_s(&k->clock);
    k->pace.ms = k->pace.steady_ms = keeper_clock_now_ms(&k->clock);
}

static void watch_clock(struct keeper *k)
{
    int64_t wall_s = keeper_clock_wall_s(&k->clock);
    uint64_t now_ms = keeper_clock_now_ms(&k->clock);
    uint64_t passed_ms = now_ms - k->pace.ms;
    int64_t jump_s = wall_s - k->pace.wall_s - (int64_t)(passed_ms / 1000);
    struct log_line l;

    if (jump_s <= JUMP_S && jump_s >= -JUMP_S) {
        if (passed_ms >= REANCHOR_MS) {
            k->pace.wall_s = wall_s;
            k->pace.ms = now_ms;
        }
        return;
    }
    log_begin(&l, k->log, LOG_WARN, "clock_set");
    log_int(&l, "seconds", jump_s);
    log_str(
        &l, "advice",
        "what is due by the new time is renewed now; authorities are exchanged by schedule only "
        "when it has run evenly for a while");
    log_end(&l);
    k->pace.wall_s = wall_s;
    k->pace.ms = k->pace.steady_ms = now_ms;
}

/* --- the turn ----------------------------------------------------------------------------------
 */
/* Half of its life is over; or the clock was set back, and it has not begun yet. */
static void renew_if_due(struct keeper *k)
{
    struct keeper_force *f = k->authority.force;
    int64_t now_s = keeper_clock_wall_s(&k->clock);
    struct err err = ERR_INIT;

    if ((now_s < f->node_renew_s && now_s >= f->node_not_before_s) ||
        keeper_clock_now_ms(&k->clock) < k->renew_retry_ms) {
        return;
    }
    if (keeper_force_renew_node(&k->authority, f, now_s, &err) == -1) {
        log_failure(k->log, LOG_ERROR, "node_renewal_failed", &err);
        k->renew_pause_ms = k->renew_pause_ms == 0 ? FIRST_PAUSE_MS : 2 * k->renew_pause_ms;
        k->renew_pause_ms = k->renew_pause_ms < CHECK_MS ? k->renew_pause_ms : CHECK_MS;
        k->renew_retry_ms = keeper_clock_now_ms(&k->clock) + k->renew_pause_ms;
        k->changed_pending = true; /* status may have to tell of it */
        return;
    }
    k->renew_pause_ms = 0;
    k->changed_pending = true;
    keeper_warn_of_root_end(k);
    log_msg(k->log, LOG_INFO, "node_renewed", "the node's intermediate has a new key");
}

void keeper_tick(struct keeper *k)
{
    watch_clock(k);
    if (!k->started) {
        return;
    }
    if (k->disk_next != NULL && k->change.phase == KEEPER_CHANGE_NONE) {
        keeper_disk_apply(k);
    }
    renew_if_due(k);
    keeper_rotate_if_due(k);
    keeper_budget_watch(k);
}
