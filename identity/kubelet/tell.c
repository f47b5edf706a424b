#include "kubelet_priv.h"

#include <poll.h>
#include <string.h>

/* The keeper takes what it can and signs meanwhile; the supervisor's end is ours. */
static int tell(struct fetcher *f, const void *msg, struct err *err)
{
    struct pollfd fds[2] = {{.fd = f->keeper, .events = POLLOUT},
                            {.fd = f->control, .events = POLLIN}};

    for (;;) {
        switch (agent_ipc_send(f->keeper, msg, -1)) {
        case IPC_OK:
            return 0;
        case IPC_AGAIN:
            (void)poll(fds, 2, -1);
            if (fds[1].revents != 0) {
                return err_set(err, ERR_UNAVAILABLE, "the supervisor is gone");
            }
            break;
        case IPC_CLOSED:
        case IPC_BAD:
            return err_set(err, ERR_UNAVAILABLE, "the keeper is gone");
        }
    }
}

static int tell_container(struct fetcher *f, const struct kubelet_container *c, struct err *err)
{
    static struct agent_msg_container m; /* one thread, and a small stack */

    agent_ipc_init(&m, AGENT_MSG_CONTAINER, 0);
    POSTERN_ASSERT(
        agent_ipc_put(m.id, sizeof(m.id), &m.id_len, str_of(c->id)) &&
        agent_ipc_put(m.name, sizeof(m.name), &m.name_len, str_of(c->name)) &&
        agent_ipc_put(m.image, sizeof(m.image), &m.image_len, str_of(c->image)) &&
        agent_ipc_put(m.image_id, sizeof(m.image_id), &m.image_id_len, str_of(c->image_id)) &&
        agent_ipc_put(m.digest, sizeof(m.digest), &m.digest_len, str_of(c->digest)));
    return tell(f, &m, err);
}

static int tell_pod(struct fetcher *f, const struct kubelet_pod *p, struct err *err)
{
    static struct agent_msg_pod m;
    struct buf labels = BUF_INIT(AGENT_POD_LABELS_MAX);
    bool fits = true;

    agent_ipc_init(&m, AGENT_MSG_POD, 0);
    m.n_containers = (uint32_t)p->n_containers;
    for (size_t i = 0; i < p->n_labels; i++) {
        fits = fits && buf_printf(&labels, "%s=%s\n", p->labels[i].key, p->labels[i].value);
    }
    POSTERN_ASSERT(fits && agent_ipc_put(m.uid, sizeof(m.uid), &m.uid_len, str_of(p->uid)) &&
                   agent_ipc_put(m.ns, sizeof(m.ns), &m.ns_len, str_of(p->namespace)) &&
                   agent_ipc_put(m.name, sizeof(m.name), &m.name_len, str_of(p->name)) &&
                   agent_ipc_put(m.sa, sizeof(m.sa), &m.sa_len, str_of(p->service_account)) &&
                   agent_ipc_put(m.node, sizeof(m.node), &m.node_len, str_of(p->node)) &&
                   agent_ipc_put(m.labels, sizeof(m.labels), &m.labels_len, buf_str(&labels)));
    buf_reset(&labels);
    if (tell(f, &m, err) == -1) {
        return -1;
    }
    for (size_t i = 0; i < p->n_containers; i++) {
        if (tell_container(f, &p->containers[i], err) == -1) {
            return -1;
        }
    }
    return 0;
}

int fetcher_tell_pods(struct fetcher *f, const struct kubelet_pods *pods, struct err *err)
{
    struct agent_msg_pods_begin frame;

    _Static_assert((int)KUBELET_PODS_MAX <= (int)AGENT_PODS_MAX &&
                       (int)KUBELET_CONTAINERS_MAX <= (int)AGENT_POD_CONTAINERS_MAX &&
                       (int)KUBELET_LABELS_TEXT_MAX <= (int)AGENT_POD_LABELS_MAX &&
                       (int)KUBELET_NAME_MAX <= (int)AGENT_POD_NAME_MAX &&
                       (int)KUBELET_IMAGE_MAX <= (int)AGENT_IMAGE_MAX,
                   "what is parsed has to fit into messages");
    agent_ipc_init(&frame, AGENT_MSG_PODS_BEGIN, 0);
    frame.n_pods = (uint32_t)pods->n;
    if (tell(f, &frame, err) == -1) {
        return -1;
    }
    for (size_t i = 0; i < pods->n; i++) {
        if (tell_pod(f, &pods->items[i], err) == -1) {
            return -1;
        }
    }
    agent_ipc_init(&frame, AGENT_MSG_PODS_COMMIT, 0);
    frame.n_pods = (uint32_t)pods->n;
    return tell(f, &frame, err);
}
