/* The channel to the process that asks the node's kubelet: its pods come in, and it is poked when
 * somebody calls whom they do not tell of yet. It is no party to any answer: what it breaks is its
 * own channel. */
#include "keeper_priv.h"

#include <unistd.h>

enum {
    MESSAGES_MAX = 64, /* in one turn: callers wait behind it */
    POKE_GAP_MS = 500,
    PENDING_MS = 3000, /* the kubelet tells of a container about a second after it runs */
};

static void drop(struct keeper *k, const char *why)
{
    if (why != NULL) {
        log_msg(k->log, LOG_ERROR, "kubelet_dropped",
                "the kubelet's process broke its protocol (%s): its channel is closed, the pods of "
                "before stay known",
                why);
    }
    close(k->kubelet);
    k->kubelet = -1;
}

void keeper_kubelet_open(struct keeper *k, int fd)
{
    if (k->kubelet != -1) {
        drop(k, NULL);
    }
    k->kubelet = fd;
    if (k->pods == NULL) {
        k->pods = keeper_pods_new();
    }
}

void keeper_kubelet_turn(struct keeper *k)
{
    static union agent_msg msg; /* too large for a stack that is kept small; one thread */
    struct err err = ERR_INIT;
    bool changed = false;
    int fd = -1;

    for (int i = 0; i < MESSAGES_MAX && k->kubelet != -1; i++) {
        switch (agent_ipc_recv(k->kubelet, AGENT_WAY_KUBELET_KEEPER, &msg, &fd)) {
        case IPC_OK:
            if (keeper_pods_take(k->pods, &msg, &changed, &err) == -1) {
                drop(k, err.what);
            }
            k->changed_pending |= changed;
            break;
        case IPC_AGAIN:
            return;
        case IPC_CLOSED:
            drop(k, NULL);
            break;
        case IPC_BAD:
            drop(k, "a bad message");
            break;
        }
    }
}

static void poke(struct keeper *k, uint64_t now_ms)
{
    struct agent_msg_plain m;

    if (k->kubelet == -1 || (k->poked_ms != 0 && now_ms - k->poked_ms < POKE_GAP_MS)) {
        return;
    }
    k->poked_ms = now_ms;
    agent_ipc_init(&m, AGENT_MSG_PODS_WANTED, 0);
    /* A full queue holds one already; a closed one is seen at the next turn. */
    (void)!agent_ipc_send(k->kubelet, &m, -1);
}

/* Whether more than is known could give somebody an identity. */
static bool entries_ask(const struct keeper_entries *set)
{
    for (size_t i = 0; set != NULL && i < set->n; i++) {
        for (size_t s = 0; s < set->items[i].n_selectors; s++) {
            if (keeper_selector_kind(set->items[i].selectors[s].type) == SPIFFE_KIND_K8S) {
                return true;
            }
        }
    }
    return false;
}

bool keeper_kubelet_pending(struct keeper *k, struct keeper_caller *c)
{
    uint64_t now_ms = keeper_clock_now_ms(&k->clock);
    struct keeper_facts facts;

    if (k->pods == NULL || c->facts.pod_uid == NULL || !entries_ask(k->entries)) {
        return false;
    }
    keeper_facts_get(k, c, &facts);
    c->pods_known |= facts.container != NULL;
    if (c->pods_known) { /* and if it is not any more, its pod has gone */
        return false;
    }
    poke(k, now_ms);
    if (c->pending_ms == 0) {
        c->pending_ms = now_ms;
    }
    return now_ms - c->pending_ms < PENDING_MS;
}

uint64_t keeper_pods_count(const struct keeper *k)
{
    return k->pods != NULL ? keeper_pods_generation(k->pods) : 0;
}
