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

static void fill(struct svid_message *m, const struct service *s, const struct service_job *job)
{
    for (uint32_t i = 0; i < job->n; i++) {
        const struct service_identity *id = &job->list[i];
        Workload__X509SVID *svid = &m->svids[i];
        workload__x509_svid__init(svid);
        m->pointers[i] = svid;
        svid->spiffe_id = text_of(id->spiffe_id);
        svid->x509_svid = (ProtobufCBinaryData){id->n_chain, id->chain};
        svid->x509_svid_key = (ProtobufCBinaryData){X509_PKCS8_LEN, id->pkcs8};
        svid->bundle = (ProtobufCBinaryData){s->n_bundle, bytes_of(s->bundle)};
        /* A hint is unique in a message (section 5.2.1): the first of the entries keeps it. */
        if (id->hint != NULL && !hint_was_used(job, i, id->hint)) {
            svid->hint = id->hint;
        }
    }
    m->response.n_svids = m->n;
    m->response.svids = m->pointers;
}

enum grpc_send service_send_svids(struct grpc_call *call, struct service *s,
                                  struct service_job *job)
{
    enum grpc_send sent = GRPC_FULL;
    struct service_secret packed = {.bytes = NULL};
    struct svid_message m = {.n = job->n};
    workload__x509_svidresponse__init(&m.response);
    m.svids = mem_must_calloc(m.n, sizeof(*m.svids));
    m.pointers = mem_must_calloc(m.n, sizeof(*m.pointers));
    fill(&m, s, job);
    size_t n = workload__x509_svidresponse__get_packed_size(&m.response);
    if (service_secret_take(s, n, &packed)) {
        (void)workload__x509_svidresponse__pack(&m.response, packed.bytes);
        sent = grpc_call_send(call, packed.bytes, n);
    }
    service_secret_give(s, &packed);
    free(m.svids);
    free(m.pointers);
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
