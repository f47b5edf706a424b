/* message: an entry of a file as the keeper hears of it. */
#include <postern/entries.h>

#include <string.h>

static void put_selectors(struct agent_msg_entry *m, const struct conf_entry *e, bool *ret_fits)
{
    for (size_t i = 0; *ret_fits && i < e->n_selectors; i++) {
        const struct conf_selector *s = &e->selectors[i];
        size_t n = s->text != NULL ? strlen(s->text) : 0;

        if (m->n_selectors == AGENT_SELECTORS_MAX ||
            n > (size_t)AGENT_SELECTOR_TEXT_MAX - m->selector_text_len) {
            *ret_fits = false;
            return;
        }
        m->selectors[m->n_selectors++] =
            (struct agent_selector){.type = s->type, .number = s->number, .text_len = (uint16_t)n};
        if (n > 0) {
            memcpy(m->selector_text + m->selector_text_len, s->text, n);
        }
        m->selector_text_len = (uint16_t)(m->selector_text_len + n);
    }
}

int entries_message(const struct conf_entries *set, size_t index, struct agent_msg_entry *ret,
                    struct err *err)
{
    const struct conf_entry *e = &set->entries[index];
    bool fits = e->dns_names.n <= AGENT_DNS_NAMES_MAX;

    agent_ipc_init(ret, AGENT_MSG_ENTRY, 0);
    ret->index = (uint32_t)index;
    ret->line = e->line;
    ret->ttl_s = e->ttl_s;
    ret->jwt_ttl_s = e->jwt_ttl_s;
    fits &= agent_ipc_put(ret->id, AGENT_NAME_MAX, &ret->id_len, str_of(e->id));
    fits &= agent_ipc_put(ret->spiffe_id, AGENT_ID_MAX, &ret->spiffe_id_len, str_of(e->spiffe_id));
    fits &= agent_ipc_put(ret->hint, AGENT_HINT_MAX, &ret->hint_len, str_of(e->hint));
    put_selectors(ret, e, &fits);
    for (size_t i = 0; fits && i < e->dns_names.n; i++) {
        fits &= agent_ipc_put(ret->dns_names[i].text, AGENT_DNS_NAME_MAX, &ret->dns_names[i].len,
                              str_of(e->dns_names.items[i]));
        ret->n_dns_names++;
    }
    if (!fits) {
        err_set(err, ERR_LIMIT, "entry \"%.100s\" is too large", e->id);
        err_where(err, "%s:%u", set->path, e->line);
        return err_expected(err,
                            "at most %d selectors, %d DNS names, and an id of at most %d bytes",
                            AGENT_SELECTORS_MAX, AGENT_DNS_NAMES_MAX, AGENT_NAME_MAX);
    }
    return 0;
}
