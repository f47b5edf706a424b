/* Messages of the Workload API, from what the agent knows. Keys pass through here: everything that
 * held one is wiped. */
#include "service_priv.h"

#include <postern/mem.h>
#include <postern/proto.h>
#include <stdlib.h>

struct svid_message {
    Workload__X509SVIDResponse response;
    Workload__X509SVID *svids;     /* owned, n */
    Workload__X509SVID **pointers; /* owned, n */
    uint32_t n;
};

/* protobuf-c's strings and bytes are not const; packing writes to none of them. */
static uint8_t *bytes_of(const void *p)
{
    return (uint8_t *)(uintptr_t)p;
}

static char *text_of(const char *p)
{
    return (char *)(uintptr_t)p;
}

static bool hint_was_used(const struct service_job *job, uint32_t before, const char *hint)
{
    for (uint32_t i = 0; i < before; i++) {
        if (job->list[i].hint != NULL && strcmp(job->list[i].hint, hint) == 0) {
            return true;
        }
    }
    return false;
}

static int fill(struct svid_message *m, const struct service *s, const struct service_job *job,
                struct err *err)
{
    for (uint32_t i = 0; i < job->n; i++) {
        const struct service_identity *id = &job->list[i];
        Workload__X509SVID *svid = &m->svids[i];
        uint8_t *key = NULL;
        size_t n_key = 0;
        workload__x509_svid__init(svid);
        m->pointers[i] = svid;
        svid->spiffe_id = text_of(id->spiffe_id);
        svid->x509_svid = (ProtobufCBinaryData){id->n_chain, id->chain};
        if (x509_key_to_pkcs8(id->key, &key, &n_key, err) == -1) {
            return -1;
        }
        svid->x509_svid_key = (ProtobufCBinaryData){n_key, key};
        svid->bundle = (ProtobufCBinaryData){s->n_bundle, bytes_of(s->bundle)};
        /* A hint is unique in a message (section 5.2.1): the first of the entries keeps it. */
        if (id->hint != NULL && !hint_was_used(job, i, id->hint)) {
            svid->hint = id->hint;
        }
    }
    m->response.n_svids = m->n;
    m->response.svids = m->pointers;
    return 0;
}

static void deinit(struct svid_message *m)
{
    for (uint32_t i = 0; i < m->n; i++) {
        (void)mem_secret_free(m->svids[i].x509_svid_key.data);
    }
    free(m->svids);
    free(m->pointers);
}

enum grpc_send service_send_svids(struct grpc_call *call, const struct service *s,
                                  struct service_job *job)
{
    struct err err = ERR_INIT;
    enum grpc_send sent = GRPC_FULL;
    struct svid_message m = {.n = job->n};
    workload__x509_svidresponse__init(&m.response);
    m.svids = mem_must_calloc(m.n, sizeof(*m.svids));
    m.pointers = mem_must_calloc(m.n, sizeof(*m.pointers));
    if (fill(&m, s, job, &err) == 0) {
        size_t n = workload__x509_svidresponse__get_packed_size(&m.response);
        uint8_t *packed = mem_secret_alloc(n);
        if (packed != NULL) {
            (void)workload__x509_svidresponse__pack(&m.response, packed);
            sent = grpc_call_send(call, packed, n);
        }
        (void)mem_secret_free(packed);
    } else {
        log_failure(s->log, LOG_ERROR, "key_failed", &err);
    }
    deinit(&m);
    return sent;
}

enum grpc_send service_send_bundles(struct grpc_call *call, const struct service *s)
{
    Workload__X509BundlesResponse__BundlesEntry entry;
    workload__x509_bundles_response__bundles_entry__init(&entry);
    entry.key = s->own_domain_id;
    entry.value = (ProtobufCBinaryData){s->n_bundle, bytes_of(s->bundle)};
    Workload__X509BundlesResponse__BundlesEntry *entries[] = {&entry};
    Workload__X509BundlesResponse response;
    workload__x509_bundles_response__init(&response);
    response.n_bundles = 1;
    response.bundles = entries;
    size_t n = workload__x509_bundles_response__get_packed_size(&response);
    mem_autofree uint8_t *packed = mem_must_calloc(1, n);
    (void)workload__x509_bundles_response__pack(&response, packed);
    return grpc_call_send(call, packed, n);
}
