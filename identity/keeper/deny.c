#include "keeper_priv.h"

#include <stdlib.h>
#include <string.h>

/* What is quarantined, of what concerns issuing: identities and image digests, sorted for looking
 * up. Serials are for those who verify. */
struct keeper_deny {
    uint64_t version;
    size_t expected, arrived;
    struct {
        char **texts; /* owned */
        size_t n;
    } kinds[2]; /* AGENT_DENY_SPIFFE_ID, AGENT_DENY_IMAGE_DIGEST */
};

struct keeper_deny *keeper_deny_new(uint64_t version, size_t expected)
{
    struct keeper_deny *d = mem_must_new(struct keeper_deny);

    d->version = version;
    d->expected = expected;
    for (size_t k = 0; k < 2; k++) {
        d->kinds[k].texts = mem_must_calloc(expected + 1, sizeof(char *));
    }
    return d;
}

struct keeper_deny *keeper_deny_free(struct keeper_deny *d)
{
    for (size_t k = 0; d != NULL && k < 2; k++) {
        for (size_t i = 0; i < d->kinds[k].n; i++) {
            free(d->kinds[k].texts[i]);
        }
        free(d->kinds[k].texts);
    }
    free(d);
    return NULL;
}

void keeper_deny_add(struct keeper_deny *d, const struct agent_msg_deny_item *msg)
{
    size_t k = msg->kind == AGENT_DENY_SPIFFE_ID ? 0 : 1;

    if (d->arrived++ < d->expected && msg->kind != AGENT_DENY_SERIAL) {
        d->kinds[k].texts[d->kinds[k].n++] = mem_must_strndup(msg->text, msg->text_len);
    }
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* false: it is not what was announced. */
static bool finish(struct keeper_deny *d, const struct agent_msg_deny_begin *commit)
{
    for (size_t k = 0; k < 2; k++) {
        qsort(d->kinds[k].texts, d->kinds[k].n, sizeof(char *), compare);
    }
    return d->version == commit->version && d->expected == commit->n_items &&
           d->arrived == d->expected;
}

static bool has(const struct keeper_deny *d, size_t kind, const char *text)
{
    return text != NULL && d->kinds[kind].n > 0 &&
           bsearch(&text, d->kinds[kind].texts, d->kinds[kind].n, sizeof(char *), compare) != NULL;
}

/* A container that the kubelet has not told about yet, or whose pod it has not told about, may be
 * any: while an image is quarantined it waits. */
static bool image_stopped(const struct keeper_deny *d, const struct keeper_facts *facts)
{
    if (d->kinds[1].n == 0 || facts->pod == NULL) {
        return d->kinds[1].n > 0 && facts->pod_untold;
    }
    return facts->container == NULL || has(d, 1, facts->container->digest);
}

bool keeper_deny_stops(const struct keeper_deny *d, const struct keeper_facts *facts,
                       const char *spiffe_id)
{
    return d != NULL && (has(d, 0, spiffe_id) || image_stopped(d, facts));
}

size_t keeper_deny_filter(const struct keeper_deny *d, const struct keeper_entries *set,
                          const struct keeper_facts *facts, uint32_t *places, size_t n)
{
    struct keeper_grant g;
    size_t kept = 0;

    if (d == NULL || d->kinds[0].n + d->kinds[1].n == 0) {
        return n;
    }
    for (size_t i = 0; i < n; i++) {
        if (keeper_entries_grant(set, facts, places[i], &g) &&
            !keeper_deny_stops(d, facts, g.spiffe_id)) {
            places[kept++] = places[i];
        }
    }
    return kept;
}

uint64_t keeper_deny_version(const struct keeper_deny *d)
{
    return d != NULL ? d->version : 0;
}

int keeper_deny_commit(struct keeper *k, const struct agent_msg_deny_begin *msg, struct err *err)
{
    struct agent_msg_deny_begin applied = *msg;

    if (k->deny_incoming == NULL || !finish(k->deny_incoming, msg)) {
        return err_set(err, ERR_PROTOCOL, "a quarantine was committed that was not begun");
    }
    keeper_deny_free(k->deny);
    k->deny = k->deny_incoming;
    k->deny_incoming = NULL;
    k->changed_pending = true;
    applied.head.type = AGENT_MSG_DENY_APPLIED;
    return keeper_tell(k, &applied, err);
}
