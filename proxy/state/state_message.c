/* A Snapshot message to a state, whole or not at all; and the one thing that is taken from a
 * message that is refused: who is quarantined. */
#include <postern/state_client.h>

#include <postern/mem.h>
#include <postern/proto.h>
#include <stdlib.h>
#include <string.h>

enum { DENY_MAX = AGENT_DENY_MAX };

static bool take_text(const Postern__V1__Document *d, struct snapshot_text *ret)
{
    if (d == NULL) {
        return true;
    }
    ret->source = d->source;
    ret->text = (struct str){(const char *)d->text.data, d->text.len};
    return d->source[0] != '\0' && d->text.len > 0;
}

/* Kinds that this binary does not know, and those that are for people, are left out: what they
 * mean for connections stands in the list as IDs and serials. */
static struct deny_item *take_deny(const Postern__V1__Snapshot *m, size_t *ret_n)
{
    struct deny_item *items = mem_must_calloc(m->n_deny + 1, sizeof(*items));
    size_t n = 0;
    for (size_t i = 0; i < m->n_deny; i++) {
        const Postern__V1__Denied *d = m->deny[i];
        if (d->kind == POSTERN__V1__DENIED__KIND__SPIFFE_ID) {
            items[n++] = (struct deny_item){DENY_SPIFFE_ID, str_of(d->text)};
        } else if (d->kind == POSTERN__V1__DENIED__KIND__SERIAL) {
            items[n++] = (struct deny_item){DENY_SERIAL, str_of(d->text)};
        }
    }
    *ret_n = n;
    return items;
}

/* Other items, or nothing that differs: what was compiled is not compiled again. */
static struct snapshot_state *as_before(const struct snapshot_told *told,
                                        struct snapshot_state *before)
{
    uint8_t digest[sizeof(before->documents_digest)];
    struct snapshot_state *s;
    snapshot_told_digest(told, digest);
    if (memcmp(digest, before->documents_digest, sizeof(digest)) != 0) {
        return NULL;
    }
    s = snapshot_state_new_deny(before, told->deny_version, told->deny, told->n_deny);
    s->generation = told->generation;
    return s;
}

static int build(const Postern__V1__Snapshot *m, struct snapshot_state *before,
                 struct snapshot_state **ret, struct err *err)
{
    struct snapshot_told told = {.generation = m->generation, .deny_version = m->deny_version};
    if (m->generation == 0 || m->n_deny > DENY_MAX || !take_text(m->policy, &told.policy) ||
        !take_text(m->mesh, &told.mesh) || !take_text(m->modes, &told.modes)) {
        return err_set(err, ERR_PROTOCOL, "the agent's snapshot is not sound");
    }
    struct conf_diag *diag = conf_diag_new();
    struct deny_item *deny = take_deny(m, &told.n_deny);
    told.deny = deny;
    struct snapshot_state *same = before != NULL ? as_before(&told, before) : NULL;
    int r = 0;
    if (same != NULL) {
        *ret = same;
    } else {
        r = snapshot_state_new(&told, diag, ret, err);
    }
    if (r == -1 && conf_diag_count(diag) > 0) {
        *err = *conf_diag_get(diag, 0);
    }
    free(deny);
    conf_diag_free(diag);
    return r;
}

int state_message_read(struct str message, struct snapshot_state *before,
                       struct snapshot_state **ret, uint64_t *ret_generation, struct err *err)
{
    Postern__V1__Snapshot *m =
        postern__v1__snapshot__unpack(NULL, message.n, (const uint8_t *)message.p);
    *ret_generation = 0;
    if (m == NULL) {
        return err_set(err, ERR_PROTOCOL, "the agent's message is no snapshot");
    }
    *ret_generation = m->generation;
    int r = build(m, before, ret, err);
    postern__v1__snapshot__free_unpacked(m, NULL);
    return r;
}

struct snapshot_state *state_message_read_deny(struct str message, struct snapshot_state *before)
{
    struct snapshot_state *s = NULL;
    Postern__V1__Snapshot *m =
        postern__v1__snapshot__unpack(NULL, message.n, (const uint8_t *)message.p);
    if (m != NULL && m->generation != 0 && m->n_deny <= DENY_MAX) {
        size_t n = 0;
        struct deny_item *deny = take_deny(m, &n);
        s = snapshot_state_new_deny(before, m->deny_version, deny, n);
        free(deny);
    }
    if (m != NULL) {
        postern__v1__snapshot__free_unpacked(m, NULL);
    }
    return s;
}

struct state_strict *state_message_read_strict(struct str message, size_t *ret_n)
{
    Postern__V1__Snapshot *m =
        postern__v1__snapshot__unpack(NULL, message.n, (const uint8_t *)message.p);
    struct state_strict *items = NULL;
    *ret_n = 0;
    if (m != NULL && m->n_strict > 0) {
        items = mem_must_calloc(STATE_STRICT_MAX, sizeof(*items));
    }
    for (size_t i = 0; items != NULL && i < m->n_strict && *ret_n < STATE_STRICT_MAX; i++) {
        const Postern__V1__StrictPort *p = m->strict[i];
        size_t len = strlen(p->listener);
        if (len > 0 && len <= STATE_LISTENER_MAX && p->port > 0 && p->port <= UINT16_MAX) {
            memcpy(items[*ret_n].listener, p->listener, len);
            items[(*ret_n)++].port = (uint16_t)p->port;
        }
    }
    if (m != NULL) {
        postern__v1__snapshot__free_unpacked(m, NULL);
    }
    return items;
}
