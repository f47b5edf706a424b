/* postern.v1.Identity/WatchTainted: streams that say which authorities are tainted. What they carry
 * is no secret and the same for every caller, so nobody is attested for it. */
#include "service_priv.h"

#include <openssl/x509v3.h>
#include <postern/mem.h>
#include <postern/proto.h>
#include <stdlib.h>

enum { ROOTS_MAX = 32 /* bits of the mask */, RETRY_MS = 1000 };

struct tainted {
    struct service_stream stream; /* first: the service knows it by this */
    uint64_t sent_generation;
    bool sent; /* the first message has gone out */
    struct loop_timer retry;
};

static void tainted_free(struct tainted *t)
{
    loop_timer_disarm(&t->retry);
    service_stream_deinit(&t->stream);
    free(t);
}

static void finish(struct tainted *t, enum grpc_status status, const char *text)
{
    struct grpc_call *call = t->stream.call;

    tainted_free(t);
    service_finish(call, status, text);
}

/* The key ids of the tainted ones among the roots; what they point to is the roots'. */
static size_t collect(const struct service *s, STACK_OF(X509) * roots,
                      ProtobufCBinaryData ret[ROOTS_MAX])
{
    size_t n = 0;

    for (int i = 0; roots != NULL && i < sk_X509_num(roots) && i < ROOTS_MAX; i++) {
        const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(sk_X509_value(roots, i));

        if ((s->bundle_tainted & UINT32_C(1) << i) != 0 && id != NULL) {
            ret[n++] = (ProtobufCBinaryData){(size_t)ASN1_STRING_length(id),
                                             (uint8_t *)(uintptr_t)ASN1_STRING_get0_data(id)};
        }
    }
    return n;
}

static enum grpc_send send_list(struct grpc_call *call, const struct service *s)
{
    ProtobufCBinaryData ids[ROOTS_MAX];
    Postern__V1__WatchTaintedResponse r;
    STACK_OF(X509) *roots =
        x509_chain_from_der((struct str){(const char *)s->bundle, s->n_bundle}, NULL);

    postern__v1__watch_tainted_response__init(&r);
    r.n_x509_key_ids = collect(s, roots, ids);
    r.x509_key_ids = ids;
    size_t n = postern__v1__watch_tainted_response__get_packed_size(&r);
    mem_autofree uint8_t *packed = mem_must_calloc(1, n > 0 ? n : 1);
    (void)postern__v1__watch_tainted_response__pack(&r, packed);
    sk_X509_pop_free(roots, X509_free);
    return grpc_call_send(call, packed, n);
}

/* Sends what has not been sent; a slow reader gets the newest list once. What finds no room now
 * goes out when there is some. */
static void poke(struct tainted *t)
{
    const struct service *s = t->stream.s;

    if (t->sent &&
        (t->sent_generation == s->bundle_generation || grpc_call_unsent(t->stream.call) > 0)) {
        return;
    }
    if (send_list(t->stream.call, s) == GRPC_SENT) {
        t->sent = true;
        t->sent_generation = s->bundle_generation;
    } else if (t->sent) {
        loop_timer_arm(&t->retry, RETRY_MS); /* its account is full: nothing here will drain */
    }
}

static void on_retry(void *arg)
{
    poke(arg);
}

static void on_changed(struct service_stream *st)
{
    poke((struct tainted *)(void *)st);
}

static void on_end(struct service_stream *st, enum grpc_status status, const char *text)
{
    finish((struct tainted *)(void *)st, status, text);
}

void service_tainted_start(struct grpc_call *call, void *arg, struct str message)
{
    static const struct service_stream_ops ops = {on_changed, on_end};
    struct tainted *t = mem_must_new(struct tainted);

    (void)arg;
    (void)message;
    service_stream_init(&t->stream, call, &ops);
    loop_timer_init(&t->retry, t->stream.s->loop, on_retry, t);
    grpc_call_set_data(call, t);
    poke(t);
    if (!t->sent) {
        finish(t, GRPC_UNAVAILABLE, "the agent is busy: try again");
    }
}

void service_tainted_drained(struct grpc_call *call, void *arg)
{
    struct tainted *t = grpc_call_data(call);

    (void)arg;
    if (t != NULL) {
        poke(t);
    }
}

void service_tainted_cancel(struct grpc_call *call)
{
    tainted_free(grpc_call_data(call));
}
