/* The keys that judge tokens: from the keeper, for ValidateJWTSVID and for streams of
 * FetchJWTBundles. As SPIRE has them here: a plain JWK set for each trust domain. */
#include "service_priv.h"

#include <postern/jwt.h>
#include <stdlib.h>

/* --- from the keeper -------------------------------------------------------------------------- */

static void get(struct service *s);

static void on_jwks(void *arg, const union agent_msg *answer)
{
    struct service *s = arg;
    const struct agent_msg_jwks *a = &answer->jwks;
    struct jwt_keys *keys = NULL;
    struct err err = ERR_INIT;
    s->jwt.ask = NULL;
    if (jwt_keys_parse((struct str){(const char *)a->jwks, a->jwks_len}, false, &keys, &err) ==
        -1) {
        log_failure(s->log, LOG_ERROR, "jwks_refused", &err); /* what was there stays */
        return;
    }
    s->jwt.keys = jwt_keys_free(s->jwt.keys);
    s->jwt.keys = keys;
    buf_reset(&s->jwt.set);
    s->jwt.set.max = AGENT_JWKS_MAX;
    POSTERN_ASSERT(buf_append(&s->jwt.set, a->jwks, a->jwks_len));
    s->jwt.generation = a->generation;
    service_jwt_changed(s);
    service_streams_changed(s);
}

static void get(struct service *s)
{
    struct agent_msg_ask msg;
    agent_ipc_init(&msg, AGENT_MSG_JWKS_GET, 0);
    s->jwt.ask = service_channel_ask(&s->keeper, &msg, AGENT_MSG_JWKS, on_jwks, s);
}

void service_jwt_changed(struct service *s)
{
    if (s->changed.jwks_generation != s->jwt.generation && s->jwt.ask == NULL) {
        get(s);
    }
}

void service_jwt_deinit(struct service *s)
{
    s->jwt.keys = jwt_keys_free(s->jwt.keys);
    buf_reset(&s->jwt.set);
}

/* --- to callers ------------------------------------------------------------------------------- */

/* JWTBundlesResponse{1 map of "spiffe://td" to a set}. */
static enum grpc_send send_bundles(struct service_watch *w, struct service_job *job)
{
    const struct service *s = w->s;
    struct buf entry = BUF_INIT(AGENT_JWKS_MAX + 512), out = BUF_INIT(AGENT_JWKS_MAX + 1024);
    enum grpc_send sent = GRPC_FULL;
    (void)job;
    if (service_wire_put(&entry, 1, str_of(s->own_domain_id)) &&
        service_wire_put(&entry, 2, buf_str(&s->jwt.set)) &&
        service_wire_put(&out, 1, buf_str(&entry))) {
        sent = grpc_call_send(w->stream.call, buf_head(&out), buf_len(&out));
    }
    buf_reset(&entry);
    buf_reset(&out);
    return sent;
}

static uint64_t generation(const struct service *s)
{
    return s->jwt.generation;
}

void service_fetch_jwt_bundles(struct grpc_call *call, void *arg, struct str message)
{
    static const struct service_watch_kind kind = {.choose = service_choose_none,
                                                   .send = send_bundles,
                                                   .generation = generation,
                                                   .metric = SERVICE_METRIC_JWT_BUNDLE_PUSHES};
    (void)arg;
    (void)message;
    (void)service_watch_start(call, &kind, NULL);
}
