/* By which form of mTLS an outbound connection goes, or a relay's goes on, and why. With `auto` a
 * destination that the map says nothing of is tried by HBONE first, for a bounded time, and what
 * came of it is kept (learned.c). Only one where nobody was met who speaks HBONE is reached
 * directly instead: whoever did answer there, and is not who has to be, or says no, has answered.
 */
#include "conn_priv.h"

#include "learned_priv.h"

static const char *const WHY[CONN_WHY_COUNT] = {"none",    "declared", "tried",    "learned",
                                                "refused", "silent",   "not_hbone"};

const char *conn_why_token(enum conn_why why)
{
    return WHY[why];
}

static struct net_addr hbone_at(const struct conn *c)
{
    struct net_addr at = c->upstream;
    net_addr_set_port(&at, conn_route(c)->hbone_port);
    return at;
}

void conn_transport_choose(struct conn *c)
{
    const struct route *r = conn_route(c);
    c->transport_why = CONN_WHY_DECLARED;
    c->transport = r != NULL ? r->transport : CONF_TRANSPORT_DISABLE;
    if (c->transport != CONF_TRANSPORT_AUTO) {
        return;
    }
    c->transport = CONF_TRANSPORT_HBONE;
    if (r->hbone_declared) {
        return;
    }
    struct net_addr at = hbone_at(c);
    enum learned_way way = learned_ask(c->worker->learned, &at, loop_now_ms(c->worker->loop));
    c->transport_why = way == LEARNED_NOTHING ? CONN_WHY_TRIED : CONN_WHY_LEARNED;
    if (way == LEARNED_DIRECT) {
        c->transport = CONF_TRANSPORT_DIRECT;
    }
}

uint32_t conn_transport_try_ms(const struct conn *c)
{
    bool tries = c->transport_why == CONN_WHY_TRIED || c->transport_why == CONN_WHY_LEARNED;
    return tries && c->transport == CONF_TRANSPORT_HBONE ? CONN_TRY_MS : 0;
}

void conn_transport_tell(struct conn_worker *w, const struct net_addr *at, enum conn_why outcome)
{
    static const enum learned_try how[CONN_WHY_COUNT] = {
        [CONN_WHY_TRIED] = LEARNED_TOOK,
        [CONN_WHY_REFUSED] = LEARNED_REFUSED,
        [CONN_WHY_SILENT] = LEARNED_SILENT,
        [CONN_WHY_NOT_HBONE] = LEARNED_NOT_HBONE,
    };
    bool changed;
    if (w->learned == NULL) {
        w->learned = learned_new(); /* without memory everything is tried each time */
    }
    uint64_t for_ms = learned_tell(w->learned, at, how[outcome], loop_now_ms(w->loop), &changed);
    for (unsigned way = LEARNED_HBONE; way <= LEARNED_DIRECT; way++) {
        atomic_store_explicit(&w->counters.learned[way - LEARNED_HBONE],
                              learned_count(w->learned, (enum learned_way)way),
                              memory_order_relaxed);
    }
    if (changed && log_enabled(w->log, LOG_INFO)) {
        char text[NET_ADDR_TEXT_MAX];
        struct log_line l;
        log_begin(&l, w->log, LOG_INFO, "transport_learned");
        log_str(&l, "destination", net_addr_text(at, text));
        log_str(&l, "transport", outcome == CONN_WHY_TRIED ? "hbone" : "direct");
        log_str(&l, "transport_why", WHY[outcome]);
        log_uint(&l, "for_s", for_ms / 1000);
        log_end(&l);
    }
}

bool conn_transport_fall_back(struct conn *c, enum conn_why outcome)
{
    if (conn_transport_try_ms(c) == 0) {
        return false;
    }
    c->transport = CONF_TRANSPORT_DIRECT;
    c->transport_why = (uint8_t)outcome;
    return true;
}

void conn_transport_count(struct conn *c)
{
    bool hbone = c->transport == CONF_TRANSPORT_HBONE;
    if (c->transport != CONF_TRANSPORT_DISABLE) {
        counter_add(&c->worker->counters.transports[hbone][c->transport_why], 1);
    }
}

const char *conn_transport_text(const struct conn *c)
{
    if (c->passthrough) {
        return "passthrough";
    }
    if (c->carrier != NULL) {
        return "hbone_session";
    }
    if (c->direction == CONF_INBOUND) {
        return conn_is_stream(c) ? "hbone" : c->plaintext ? "plaintext" : NULL;
    }
    switch (c->transport) {
    case CONF_TRANSPORT_DIRECT:
        return "direct";
    case CONF_TRANSPORT_HBONE:
        return "hbone";
    case CONF_TRANSPORT_DISABLE:
        return c->upstream.len == 0 ? NULL : c->route != NULL ? "plaintext" : "passthrough";
    case CONF_TRANSPORT_AUTO:
    case CONF_TRANSPORT_COUNT:
        break;
    }
    return NULL;
}

const char *conn_transport_onward_text(const struct conn *c)
{
    return !c->relay || c->transport_why == CONN_WHY_NONE ? NULL
           : c->transport == CONF_TRANSPORT_HBONE         ? "hbone"
                                                          : "direct";
}
