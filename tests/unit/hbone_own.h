/* A session of the test's own with a world's server, for what no Postern would ask. */
#ifndef POSTERN_TEST_HBONE_OWN_H
#define POSTERN_TEST_HBONE_OWN_H

#include "hbone_world.h"

struct own {
    struct net_scratch scratch;
    struct tls_worker tls;
    struct tls_stream transport;
    struct hbone_session *s;
    struct hbone_stream st;
};

static inline void own_wake(void *arg)
{
    (void)arg;
}
static inline void own_ready(struct hbone_stream *st, unsigned ready)
{
    (void)st;
    (void)ready;
}
static const struct hbone_ops OWN = {.wake = own_wake, .ready = own_ready};

static inline void own_wait(struct own *o)
{
    struct pollfd p = {.fd = o->transport.base.fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
}

/* alpn NULL: says h2. False: it was refused. */
static inline bool own_open(struct world *w, struct own *o, const char *alpn)
{
    static const struct str server = {"spiffe://a.b/server", 19};
    struct err err = ERR_INIT;
    memset(o, 0, sizeof(*o));
    int fd = dial(w->hbone);
    assert_int_equal(net_scratch_init(&o->scratch, &err), 0);
    assert_int_equal(tls_worker_init(&o->tls, &o->scratch, &err), 0);
    assert_int_equal(
        tls_stream_init_client(&o->transport, &o->tls, w->client.identity->client, &server, 1, fd),
        0);
    if (alpn == NULL || alpn[0] != '\0') {
        assert_true(tls_offer_alpn(&o->transport, alpn != NULL ? str_of(alpn) : tls_alpn_h2));
    } else {
        (void)SSL_set_alpn_protos(o->transport.ssl, NULL, 0);
    }
    enum stream_outcome r;
    while ((r = tls_handshake(&o->transport)) == STREAM_AGAIN) {
        own_wait(o);
    }
    if (r != STREAM_OK) {
        return false;
    }
    const struct hbone_spec spec = {
        .transport = &o->transport.base, .scratch = &o->scratch, .ops = &OWN, .arg = o};
    o->s = hbone_session_new(&spec);
    return true;
}

static inline void own_close(struct own *o)
{
    if (o->s != NULL) {
        hbone_stream_close(&o->st, true);
        hbone_session_free(o->s);
    }
    stream_deinit(&o->transport.base, false);
    tls_worker_deinit(&o->tls);
    net_scratch_deinit(&o->scratch);
}

/* 0: the session ended instead. */
static inline unsigned own_ask(struct own *o, const char *authority)
{
    hbone_stream_close(&o->st, true);
    assert_true(hbone_stream_open(o->s, str_of(authority), &o->st, o));
    while (hbone_session_turn(o->s) && o->st.status == 0) {
        own_wait(o);
        if (!hbone_session_receive(o->s, 1)) {
            break;
        }
    }
    return o->st.status;
}

#endif
