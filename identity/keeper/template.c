/* template: what an entry's ID comes to for a caller, and which facts its variables stand for. */
#include <postern/keeper.h>

#include <postern/spiffe.h>
#include <stdio.h>

enum { NUMBER_MAX = 16 };

unsigned keeper_selector_kind(uint32_t type)
{
    if (type <= AGENT_SELECTOR_UNIX_SHA256) {
        return SPIFFE_KIND_UNIX;
    }
    if (type == AGENT_SELECTOR_SYSTEMD_ID) {
        return SPIFFE_KIND_SYSTEMD;
    }
    return type <= AGENT_SELECTOR_CONTAINER_RUNTIME ? SPIFFE_KIND_CONTAINER : SPIFFE_KIND_K8S;
}

bool keeper_template_expand(const char *spiffe_id, const struct keeper_facts *f,
                            char ret[AGENT_ID_MAX + 1])
{
    char uid[NUMBER_MAX], gid[NUMBER_MAX];
    const struct keeper_pod *pod = f->pod;
    const struct str values[SPIFFE_N_VARIABLES] = {
        [SPIFFE_K8S_NS] = str_of(pod != NULL ? pod->ns : NULL),
        [SPIFFE_K8S_SA] = str_of(pod != NULL ? pod->sa : NULL),
        [SPIFFE_K8S_POD_NAME] = str_of(pod != NULL ? pod->name : NULL),
        [SPIFFE_K8S_POD_UID] = str_of(pod != NULL ? pod->uid : NULL),
        [SPIFFE_K8S_CONTAINER_NAME] = str_of(f->container != NULL ? f->container->name : NULL),
        [SPIFFE_K8S_NODE_NAME] = str_of(pod != NULL ? pod->node : NULL),
        [SPIFFE_UNIX_UID] = {uid, (size_t)snprintf(uid, sizeof(uid), "%u", (unsigned)f->uid)},
        [SPIFFE_UNIX_GID] = {gid, (size_t)snprintf(gid, sizeof(gid), "%u", (unsigned)f->gid)},
        [SPIFFE_SYSTEMD_ID] = str_of(f->unit),
        [SPIFFE_CONTAINER_ID] = str_of(f->container_id),
    };

    _Static_assert((int)AGENT_ID_MAX == (int)SPIFFE_ID_MAX, "one bound");
    return spiffe_template_expand(str_of(spiffe_id), values, ret);
}
