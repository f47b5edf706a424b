/* facts: what is known of a caller, gathered: the attestor's word, and whose pod that is. */
#include "keeper_priv.h"

#include <stddef.h>
#include <string.h>

struct space {
    uint8_t *p;
    size_t at;
};

static const void *put(struct space *s, const void *from, size_t n)
{
    void *to = s->p + s->at;

    if (n > 0) {
        memcpy(to, from, n);
    }
    s->at += n;
    return to;
}

static const char *put_text(struct space *s, const char *text, size_t n)
{
    const char *to = put(s, text, n);

    (void)put(s, "", 1);
    return n > 0 ? to : NULL;
}

/* The numbers and flags, in one place and without padding between them. How many groups there are
 * is one of them: their bytes could else be taken for those of the path behind them. */
struct fixed {
    uint32_t uid, gid, runtime, n_groups;
    uint8_t own_view, contained, has_sha256, unused;
};

void keeper_facts_take(const struct agent_msg_caller *msg, struct keeper_facts *ret,
                       uint8_t **ret_space, size_t *ret_size)
{
    const struct fixed fixed = {.uid = msg->uid,
                                .gid = msg->gid,
                                .runtime = msg->runtime,
                                .n_groups = msg->n_groups,
                                .own_view = msg->own_view,
                                .contained = msg->contained,
                                .has_sha256 = msg->has_sha256};
    size_t groups_size = msg->n_groups * sizeof(msg->groups[0]);
    size_t sha256_size = msg->has_sha256 ? sizeof(msg->sha256) : 0;
    size_t size = sizeof(fixed) + groups_size + sha256_size + msg->path_len + msg->unit_len +
                  msg->container_id_len + msg->pod_uid_len + 4;
    struct space s = {.p = mem_must_calloc(1, size)};

    *ret = (struct keeper_facts){.uid = msg->uid,
                                 .gid = msg->gid,
                                 .n_groups = msg->n_groups,
                                 .own_view = msg->own_view,
                                 .contained = msg->contained,
                                 .runtime = msg->runtime};
    (void)put(&s, &fixed, sizeof(fixed));
    ret->groups = put(&s, msg->groups, groups_size); /* aligned: what is before it is */
    ret->sha256 = put(&s, msg->sha256, sha256_size);
    if (sha256_size == 0) {
        ret->sha256 = NULL;
    }
    ret->path = put_text(&s, msg->path, msg->path_len);
    ret->unit = put_text(&s, msg->unit, msg->unit_len);
    ret->container_id = put_text(&s, msg->container_id, msg->container_id_len);
    ret->pod_uid = put_text(&s, msg->pod_uid, msg->pod_uid_len);
    POSTERN_ASSERT(s.at == size);
    *ret_space = s.p;
    *ret_size = size;
}

void keeper_facts_get(const struct keeper *k, const struct keeper_caller *c,
                      struct keeper_facts *ret)
{
    *ret = c->facts;
    ret->pod = k->pods != NULL ? keeper_pods_find(k->pods, c->facts.pod_uid) : NULL;
    ret->pod_untold = k->pods != NULL && c->facts.pod_uid != NULL && ret->pod == NULL;
    ret->container = ret->pod != NULL ? keeper_pod_find(ret->pod, c->facts.container_id) : NULL;
}
