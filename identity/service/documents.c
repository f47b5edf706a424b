/* What proxies are told, as it comes from the supervisor: a set is taken whole, or what was there
 * stays. Nothing of it is understood here. */
#include "service_priv.h"

#include <postern/mem.h>
#include <stdlib.h>

struct service_documents {
    struct agent_doc now[AGENT_N_DOC_PLACES], next[AGENT_N_DOC_PLACES];
    uint64_t generation; /* of `now`; 0: nothing has come */
    uint64_t policy, staged;
    struct rollout_stage *stage; /* whom `staged` is for; NULL: nobody */
    uint32_t n_parts;            /* of `next`, so far */
    bool open;                   /* a set has begun */
    struct agent_msg_docs_state state;
};

void service_documents_init(struct service *s)
{
    s->documents = mem_must_new(struct service_documents);
    for (size_t i = 0; i < AGENT_N_DOC_PLACES; i++) {
        agent_doc_init(&s->documents->now[i]);
        agent_doc_init(&s->documents->next[i]);
    }
}

void service_documents_deinit(struct service *s)
{
    for (size_t i = 0; s->documents != NULL && i < AGENT_N_DOC_PLACES; i++) {
        agent_doc_deinit(&s->documents->now[i]);
        agent_doc_deinit(&s->documents->next[i]);
    }
    if (s->documents != NULL) {
        rollout_stage_free(s->documents->stage);
    }
    free(s->documents);
    s->documents = NULL;
}

static bool commit(struct service *s, const struct agent_msg_docs *m)
{
    struct service_documents *d = s->documents;
    struct rollout_stage *stage = NULL;

    if (!d->open || d->n_parts != m->n_parts || m->generation == 0 ||
        (m->staged != 0) != d->next[AGENT_DOCUMENT_STAGED].present ||
        (m->staged != 0 &&
         rollout_stage_parse((struct str){m->stage, m->stage_len}, &stage, NULL) == -1)) {
        return false;
    }
    rollout_stage_free(d->stage);
    d->stage = stage;
    d->open = false;
    d->generation = m->generation;
    d->policy = m->policy;
    d->staged = m->staged;
    for (size_t i = 0; i < AGENT_N_DOC_PLACES; i++) {
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
        for (size_t i = 0; i < AGENT_N_DOC_PLACES; i++) {
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

uint64_t service_policy_for(const struct service *s, const struct rollout_proxy *p)
{
    const struct service_documents *d = s->documents;

    return d->stage != NULL && rollout_stage_means(d->stage, p) ? d->staged : d->policy;
}

const struct agent_doc *service_policy(const struct service *s, uint64_t number)
{
    const struct service_documents *d = s->documents;

    return &d->now[d->staged != 0 && number == d->staged ? AGENT_DOCUMENT_STAGED
                                                         : AGENT_DOCUMENT_POLICY];
}

void service_policies(const struct service *s, uint64_t *ret_in_force, uint64_t *ret_staged)
{
    *ret_in_force = s->documents->policy;
    *ret_staged = s->documents->staged;
}

const struct agent_msg_docs_state *service_documents_state(const struct service *s)
{
    return &s->documents->state;
}
