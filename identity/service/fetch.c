/* What the streams of the Workload API itself carry: FetchX509SVID and FetchX509Bundles. */
#include "service_priv.h"

bool service_choose_none(void *arg, struct service_job *job, char *ret_text, size_t size)
{
    (void)arg;
    (void)job;
    (void)ret_text;
    (void)size;
    return true; /* a caller without any identity has been refused already */
}

static enum grpc_send send_svids(struct service_watch *w, struct service_job *job)
{
    return service_send_svids(w->stream.call, w->s, job);
}

static enum grpc_send send_bundles(struct service_watch *w, struct service_job *job)
{
    (void)job;
    return service_send_bundles(w->stream.call, w->s);
}

static const struct service_watch_kind svids = {.send = send_svids,
                                                .metric = SERVICE_METRIC_SVID_PUSHES};
static const struct service_watch_kind bundles = {
    .choose = service_choose_none, .send = send_bundles, .metric = SERVICE_METRIC_BUNDLE_PUSHES};

/* Requests are empty: whatever fields a later version of the API adds, this one does not know. */
void service_fetch_svids(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    (void)message;
    (void)service_watch_start(call, &svids, NULL);
}

void service_fetch_bundles(struct grpc_call *call, void *arg, struct str message)
{
    (void)arg;
    (void)message;
    (void)service_watch_start(call, &bundles, NULL);
}
