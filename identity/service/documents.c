/* What proxies are told, as it comes from the supervisor: a set is taken whole, or what was there
 * stays. Nothing of it is understood here. */
#include "service_priv.h"

#include <postern/mem.h>
#include <stdlib.h>

struct service_documents {
    struct agent_doc now[AGENT_N_DOCUMENTS], next[AGENT_N_DOCUMENTS];
    uint64_t generation; /* of `now`; 0: nothing has come */
    uint32_t n_parts;    /* of `next`, so far */
    bool open;           /* a set has begun */
    struct agent_msg_docs_state state;
};

void service_documents_init(struct service *s)
{
    s->documents = mem_must_new(struct service_documents);
    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        agent_doc_init(&s->documents->now[i]);
        agent_doc_init(&s->documents->next[i]);
    }
}

void service_documents_deinit(struct service *s)
{
    for (size_t i = 0; s->documents != NULL && i < AGENT_N_DOCUMENTS; i++) {
        agent_doc_deinit(&s->documents->now[i]);
        agent_doc_deinit(&s->documents->next[i]);
    }
    free(s->documents);
    s->documents = NULL;
}

static bool commit(struct service *s, const struct agent_msg_docs *m)
{
    struct service_documents *d = s->documents;

    if (!d->open || d->n_parts != m->n_parts || m->generation == 0) {
        return false;
    }
    d->open = false;
    d->generation = m->generation;
    for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
        agent_doc_move(&d->now[i], &d->next[i]);
    }
    service_state_changed(s);
    return true;
}

bool service_documents_push(struct service *s, const union agent_msg *msg)
{
    struct service_documents *d = s->documents;

    switch (msg->head.type) {
    case AGENT_MSG_DOCS_BEGIN:
        d->open = true;
        d->n_parts = 0;
        for (size_t i = 0; i < AGENT_N_DOCUMENTS; i++) {
            agent_doc_deinit(&d->next[i]);
        }
        return true;
    case AGENT_MSG_DOC_PART:
        d->n_parts++;
        return d->open && agent_doc_add(&d->next[msg->doc_part.document], &msg->doc_part);
    case AGENT_MSG_DOCS_COMMIT:
        return commit(s, &msg->docs);
    default:
        d->state = msg->docs_state;
        return true;
    }
}

uint64_t service_documents_generation(const struct service *s)
{
    return s->documents->generation;
}

const struct agent_doc *service_document(const struct service *s, enum agent_document which)
{
    return &s->documents->now[which];
}

const struct agent_msg_docs_state *service_documents_state(const struct service *s)
{
    return &s->documents->state;
}
