/*
 * What proxies tell of their permissive ports (docs/permissive.md): taken from streams of the
 * identities that they are attested as, handed to the supervisor to be kept, given back by it when
 * this process starts again.
 */
#include "service_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <postern/readiness.h>
#include <stdlib.h>

enum {
    KEEP_MS = 30000,      /* from the first news to the file */
    KEEP_SOON_MS = 1000,  /* a port that turned strict */
    REPORT_EVERY_MS = 500 /* of one stream; sooner ones are not taken */
};

struct service_history {
    struct readiness *kept; /* owned */
    struct buf incoming;    /* of the supervisor, in parts */
    struct loop_timer timer;
    uint64_t due_ms; /* 0: nothing is to be kept */
    bool known;      /* the supervisor has said what there was */
};

static void keep(struct service *s)
{
    struct service_history *h = s->history;
    struct buf all = BUF_INIT(AGENT_HISTORY_MAX);
    struct agent_msg_history m;
    size_t at = 0;

    h->due_ms = 0;
    if (readiness_save(h->kept, os_wall_s(), &all)) { /* its bounds are within this */
        while (agent_history_part(buf_str(&all), &at, &m)) {
            (void)service_channel_ask(&s->control, &m, AGENT_MSG_NONE, NULL, NULL);
        }
    }
    buf_reset(&all);
}

static void on_timer(void *arg)
{
    keep(arg);
}

static void keep_within(struct service *s, uint64_t ms)
{
    struct service_history *h = s->history;
    uint64_t due_ms = loop_now_ms(s->loop) + ms;

    if (h->due_ms == 0 || due_ms < h->due_ms) {
        h->due_ms = due_ms;
        loop_timer_arm(&h->timer, ms);
    }
}

void service_history_init(struct service *s)
{
    s->history = mem_must_new(struct service_history);
    s->history->kept = readiness_new();
    s->history->incoming.max = AGENT_HISTORY_MAX;
    loop_timer_init(&s->history->timer, s->loop, on_timer, s);
}

void service_history_stop(struct service *s)
{
    if (s->history->due_ms != 0) {
        loop_timer_disarm(&s->history->timer);
        keep(s);
        service_channel_flush(&s->control);
    }
}

void service_history_deinit(struct service *s)
{
    if (s->history != NULL) {
        loop_timer_disarm(&s->history->timer);
        s->history->kept = readiness_free(s->history->kept);
        buf_reset(&s->history->incoming);
        free(s->history);
        s->history = NULL;
    }
}

bool service_history_push(struct service *s, const struct agent_msg_history *m)
{
    struct service_history *h = s->history;
    struct err err = ERR_INIT;
    bool whole = false;

    if (h->known || !agent_history_take(&h->incoming, m, &whole)) {
        return false;
    }
    if (whole) {
        h->known = true;
        if (readiness_load(h->kept, buf_str(&h->incoming), &err) == -1) {
            err_advise(&err, "it begins anew: ports that had turned strict take plaintext again "
                             "when their proxies restart, unless their files say `mode: strict`");
            log_failure(s->log, LOG_ERROR, "plaintext_history_damaged", &err);
        }
        buf_reset(&h->incoming);
    }
    return true;
}

void service_history_report(struct service *s, struct str identity, struct str name,
                            const Postern__V1__PlaintextReport *report, uint64_t *last_ms)
{
    uint64_t now_ms = loop_now_ms(s->loop);

    if (!s->history->known || (*last_ms != 0 && now_ms - *last_ms < REPORT_EVERY_MS)) {
        return;
    }
    *last_ms = now_ms;
    switch (readiness_take(s->history->kept, identity, name, report, os_wall_s())) {
    case READINESS_TURNED:
        keep_within(s, KEEP_SOON_MS);
        break;
    case READINESS_NEWS:
        keep_within(s, KEEP_MS);
        break;
    case READINESS_NOTHING:
        break;
    }
}

bool service_history_strict(const struct service *s, struct str identity, size_t n,
                            struct readiness_strict *ret)
{
    return readiness_strict(s->history->kept, identity, n, ret);
}

bool service_write_readiness(void *arg, struct buf *out)
{
    const struct service *s = arg;

    return readiness_write(s->history->kept, os_wall_s(), out);
}

bool service_put_history_metrics(const struct service *s, struct buf *out)
{
    struct readiness_counts c;

    readiness_count(s->history->kept, &c);
    return metrics_write_value(out, "postern_agent_permissive_ports_known", METRIC_GAUGE,
                               "Permissive ports that proxies told of.", "", (double)c.ports) &&
           metrics_write_value(out, "postern_agent_permissive_ports_not_kept", METRIC_COUNTER,
                               "Words about ports that were not kept: unsound, or too many.", "",
                               (double)c.not_kept);
}
