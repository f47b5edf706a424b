/* What is quarantined on this node, as the supervisor says: for the status page and for those who
 * verify. Issuing is stopped by the keeper, not here. */
#include "service_priv.h"

#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

void service_deny_clear(struct service_deny *d)
{
    for (size_t i = 0; i < d->n; i++) {
        free(d->items[i].text);
    }
    free(d->items);
    *d = (struct service_deny){.items = NULL};
}

bool service_deny_has_id(const struct service_deny *d, const char *spiffe_id)
{
    for (size_t i = 0; i < d->n; i++) {
        if (d->items[i].kind == AGENT_DENY_SPIFFE_ID && strcmp(d->items[i].text, spiffe_id) == 0) {
            return true;
        }
    }
    return false;
}

static bool begin(struct service_deny *d, const struct agent_msg_deny_begin *msg)
{
    service_deny_clear(d);
    d->version = msg->version;
    d->expected = msg->n_items;
    d->items = mem_must_calloc(d->expected + 1, sizeof(*d->items));
    return true;
}

static bool add(struct service_deny *d, const struct agent_msg_deny_item *msg)
{
    if (d->items == NULL || d->n >= d->expected || msg->index != d->n) {
        return false;
    }
    d->items[d->n++] =
        (struct service_deny_item){.kind = msg->kind,
                                   .until_s = msg->until_s,
                                   .text = mem_must_strndup(msg->text, msg->text_len)};
    return true;
}

bool service_deny_take(struct service *s, const union agent_msg *msg)
{
    struct service_deny *in = &s->deny_incoming;

    switch (msg->head.type) {
    case AGENT_MSG_DENY_BEGIN:
        return begin(in, &msg->deny_begin);
    case AGENT_MSG_DENY_ITEM:
        return add(in, &msg->deny_item);
    default:
        break;
    }
    if (in->items == NULL || in->version != msg->deny_begin.version || in->n != in->expected ||
        in->n != msg->deny_begin.n_items) {
        return false;
    }
    service_deny_clear(&s->deny);
    s->deny = *in;
    *in = (struct service_deny){.items = NULL};
    service_state_changed(s);
    return true;
}
