/*
 * The keeper's set of pods, message by message: each input byte pair is a message of a process that
 * may be anybody's. Properties: what is in force changes by a good COMMIT alone, and then is
 * exactly what was sent since its BEGIN; a message that is refused drops the set in the making.
 */
#include "pods.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { N_UIDS = 16 };

/* What the set in the making has to be by now: containers of each pod, -1: not in it. */
struct model {
    int containers[N_UIDS];
    bool making;
};

static void uid_text(unsigned i, char ret[40])
{
    (void)snprintf(ret, 40, "%08x-0000-0000-0000-%012x", i, i);
}

static void make_message(uint8_t op, uint8_t value, union agent_msg *m)
{
    static const char *const spaces[] = {"shop", "data", "", "e vil"};
    char uid[40];

    switch (op % 4) {
    case 0:
        agent_ipc_init(m, AGENT_MSG_PODS_BEGIN, 0);
        m->pods_begin.n_pods = value % N_UIDS;
        break;
    case 1:
        agent_ipc_init(m, AGENT_MSG_POD, 0);
        uid_text(value % N_UIDS, uid);
        m->pod.n_containers = (value >> 4) % 3;
        (void)agent_ipc_put(m->pod.uid, sizeof(m->pod.uid), &m->pod.uid_len, str_of(uid));
        (void)agent_ipc_put(m->pod.ns, sizeof(m->pod.ns), &m->pod.ns_len,
                            str_of(spaces[(op >> 2) % 8 < 6 ? 0 : (op >> 2) % 4]));
        (void)agent_ipc_put(m->pod.name, sizeof(m->pod.name), &m->pod.name_len, STR_LIT("p"));
        (void)agent_ipc_put(m->pod.labels, sizeof(m->pod.labels), &m->pod.labels_len,
                            (op & 0x80) != 0 ? STR_LIT("a=b\nbroken") : STR_LIT("a=b\n"));
        break;
    case 2:
        agent_ipc_init(m, AGENT_MSG_CONTAINER, 0);
        (void)snprintf(m->container.id, sizeof(m->container.id), "%02x", value);
        m->container.id_len = 2;
        m->container.name[0] = 'c';
        m->container.name_len = (op & 0x80) == 0;
        break;
    default:
        agent_ipc_init(m, AGENT_MSG_PODS_COMMIT, 0);
        m->pods_begin.n_pods = value % N_UIDS;
        break;
    }
}

static void model_take(struct model *now, const union agent_msg *m, uint8_t value, int *last)
{
    switch (m->head.type) {
    case AGENT_MSG_PODS_BEGIN:
        memset(now->containers, -1, sizeof(now->containers));
        now->making = true;
        break;
    case AGENT_MSG_POD:
        MUST(now->containers[value % N_UIDS] == -1);
        now->containers[value % N_UIDS] = 0;
        *last = value % N_UIDS;
        break;
    case AGENT_MSG_CONTAINER:
        now->containers[*last]++;
        break;
    default:
        break;
    }
}

static void check(const struct keeper_pods *pods, const struct model *force)
{
    char uid[40];

    for (unsigned i = 0; i < N_UIDS; i++) {
        const struct keeper_pod *p;

        uid_text(i, uid);
        p = keeper_pods_find(pods, uid);
        MUST((p != NULL) == (force->containers[i] >= 0));
        MUST(p == NULL ||
             (strcmp(p->uid, uid) == 0 && p->n_containers == (size_t)force->containers[i]));
        MUST(p == NULL || p->n_containers == 0 ||
             keeper_pod_find(p, p->containers[0].id) == &p->containers[0]);
    }
    MUST(keeper_pods_find(pods, "ffffffff") == NULL && keeper_pods_find(pods, NULL) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static union agent_msg m;
    struct keeper_pods *pods = keeper_pods_new();
    struct model force, making = {.making = false};
    int last = 0;

    memset(force.containers, -1, sizeof(force.containers));
    for (size_t i = 0; i + 1 < size && i < 2048; i += 2) {
        uint64_t before = keeper_pods_generation(pods);
        struct err err = ERR_INIT;
        bool changed = true;

        make_message(data[i], data[i + 1], &m);
        if (keeper_pods_take(pods, &m, &changed, &err) == -1) {
            MUST(!changed && err.code == ERR_PROTOCOL);
            making.making = false;
        } else {
            MUST(m.head.type == AGENT_MSG_PODS_BEGIN || making.making);
            model_take(&making, &m, data[i + 1], &last);
            if (m.head.type == AGENT_MSG_PODS_COMMIT) {
                force = making;
                making.making = false;
            }
        }
        MUST(keeper_pods_generation(pods) == before + (changed ? 1 : 0));
        check(pods, &force);
    }
    keeper_pods_free(pods);
    return 0;
}
