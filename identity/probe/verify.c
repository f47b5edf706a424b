/* verify: asks a server for its certificate until it is the new one. */
#include "probe_priv.h"

#include <poll.h>
#include <postern/os.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_DELAY_MS = 50, MAX_DELAY_MS = 2000, ONE_TRY_MS = 5000 };

static int bad_greeting(enum greeting got, const char *what, struct err *err)
{
    return err_set(err, ERR_PROTOCOL, "%s %s", what,
                   got == GREETING_NO_TLS ? "says that it has no TLS"
                                          : "does not speak its protocol");
}

static int greet_postgres(struct place *p, struct err *err)
{
    uint8_t ask[GREETING_POSTGRES_SIZE], answer = 0;
    enum greeting got;
    size_t n = 0;

    greeting_postgres_ask(ask);
    if (place_send(p, ask, sizeof(ask), err) == -1 || place_recv(p, &answer, 1, &n, err) == -1) {
        return -1;
    }
    if (n == 0) {
        return err_set(err, ERR_PROTOCOL, "the server ended the connection");
    }
    got = greeting_postgres(&answer, n);
    return got == GREETING_TLS ? 0 : bad_greeting(got, "PostgreSQL", err);
}

static int greet_mysql(struct place *p, struct err *err)
{
    uint8_t packet[GREETING_MYSQL_MAX], ask[GREETING_MYSQL_SIZE];
    enum greeting got = GREETING_MORE;
    size_t len = 0;

    while (got == GREETING_MORE && len < sizeof(packet)) {
        size_t n = 0;

        if (place_recv(p, packet + len, sizeof(packet) - len, &n, err) == -1) {
            return -1;
        }
        if (n == 0) {
            return err_set(err, ERR_PROTOCOL, "the server ended the connection");
        }
        len += n;
        got = greeting_mysql(packet, len);
    }
    if (got != GREETING_TLS) {
        return bad_greeting(got, "the database", err);
    }
    greeting_mysql_ask(ask);
    return place_send(p, ask, sizeof(ask), err);
}

static int greet(struct place *p, struct err *err)
{
    switch (p->url->scheme) {
    case CONF_URL_TLS_POSTGRES:
        return greet_postgres(p, err);
    case CONF_URL_TLS_MYSQL:
        return greet_mysql(p, err);
    case CONF_URL_TLS:
    case CONF_URL_HTTP:
    case CONF_URL_HTTPS:
    default:
        return 0;
    }
}

static enum actions_verdict judge(const struct probe_question *q, const struct probe_tls *tls)
{
    if (!tls->has_leaf) {
        return ACTIONS_UNREACHABLE;
    }
    if (memcmp(tls->leaf, q->want, sizeof(q->want)) == 0) {
        return ACTIONS_SERVED;
    }
    return q->has_old != 0 && memcmp(tls->leaf, q->old, sizeof(q->old)) == 0 ? ACTIONS_OLD
                                                                             : ACTIONS_OTHER;
}

static void try_once(const struct probe_question *q, struct probe_tls *tls, uint64_t until_ms,
                     struct probe_answer *a)
{
    uint64_t now_ms = os_now_ms();
    struct place p = {.url = &q->url, .fd = -1, .until_ms = now_ms + ONE_TRY_MS};
    struct err err = ERR_INIT;
    const char *name = q->server_name[0] != '\0' ? q->server_name
                       : q->url.host[0] != '\0'  ? q->url.host
                                                 : NULL;

    p.until_ms = p.until_ms < until_ms ? p.until_ms : until_ms;
    tls->has_leaf = false;
    if (place_connect(&p, &err) == 0 && greet(&p, &err) == 0) {
        /* What fails behind the certificate is no matter: a server may want one of ours. */
        (void)probe_tls_connect(tls, &p, name, &err);
    }
    a->tries++;
    a->verdict = judge(q, tls);
    a->text_len = 0;
    if (tls->has_leaf) {
        a->has_seen = 1;
        memcpy(a->seen, tls->leaf, sizeof(a->seen));
    } else {
        a->has_seen = 0;
        probe_set_text(a, &err);
    }
    probe_tls_close(tls);
    place_close(&p);
}

void probe_verify(const struct probe_question *q, struct probe_tls *tls, uint64_t until_ms,
                  struct probe_answer *a)
{
    uint64_t delay_ms = FIRST_DELAY_MS;

    a->outcome = ACTIONS_OK;
    for (;;) {
        const struct probe_answer before = *a;
        uint64_t now_ms;

        try_once(q, tls, until_ms, a);
        now_ms = os_now_ms();
        if (a->has_seen == 0 && before.has_seen != 0 && now_ms >= until_ms) {
            /* Cut off by the end of the time: what was seen before says more. */
            uint32_t tries = a->tries;
            *a = before;
            a->tries = tries;
        }
        if (a->verdict == ACTIONS_SERVED || now_ms + delay_ms >= until_ms) {
            return;
        }
        (void)poll(NULL, 0, (int)delay_ms);
        delay_ms = delay_ms * 2 < MAX_DELAY_MS ? delay_ms * 2 : MAX_DELAY_MS;
    }
}
