/*
 * The keys of session tickets. New ones with everything that may take something away from somebody,
 * which is every new snapshot but one of resolved names alone, and before they are too old; the old
 * ones go with the last snapshot that has them. None where no file asks for resumption.
 */
#include "proxy_priv.h"

#include <postern/os.h>

static bool wanted(const struct conf_proxy *c)
{
    bool on = c->tls.resumption == CONF_RESUMPTION_ON;
    for (size_t i = 0; i < c->n_listeners; i++) {
        on = on || c->listeners[i].downstream.tls.resumption == CONF_RESUMPTION_ON ||
             c->listeners[i].upstream.tls.resumption == CONF_RESUMPTION_ON;
    }
    return on;
}

static bool changed(const struct proxy *p)
{
    const struct snapshot *s = p->snapshot;
    return s == NULL || s->files != p->files || s->identity != p->identity ||
           s->parties != p->parties || s->state != p->state || p->quarantined;
}

static void on_age(void *arg)
{
    proxy_publish((struct proxy *)arg);
}

void proxy_tickets_init(struct proxy *p)
{
    loop_timer_init(&p->tickets_timer, p->loop, on_age, p);
}

void proxy_tickets_renew(struct proxy *p)
{
    const uint64_t half_ms = TLS_TICKETS_LIFE_S * UINT64_C(1000) / 2;
    if (!wanted(p->files->conf)) {
        p->tickets = tls_tickets_unref(p->tickets);
        loop_timer_disarm(&p->tickets_timer);
        return;
    }
    if (p->tickets != NULL && !changed(p) &&
        !tls_tickets_too_old(p->tickets, os_now_ms() + half_ms)) {
        return;
    }
    tls_tickets_unref(p->tickets);
    p->tickets = tls_tickets_new();
    loop_timer_arm(&p->tickets_timer, half_ms);
}

void proxy_tickets_deinit(struct proxy *p)
{
    if (p->loop != NULL) {
        loop_timer_disarm(&p->tickets_timer);
    }
    p->tickets = tls_tickets_unref(p->tickets);
}
