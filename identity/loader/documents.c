/* A document for proxies: parsed as strictly as a proxy would, and said in parts that others can
 * hand on without parsing them. */
#include "loader_priv.h"

#include <postern/agent_docs.h>

struct saying {
    struct agent_msg_doc_part msg;
    enum agent_document which;
    size_t n_items, n_bytes, n_target_bytes;
    struct err too_large; /* ERR_NONE: it fits */
    struct err *err;      /* of the channel */
};

static int say(struct saying *s, enum agent_doc_part_kind kind, unsigned line, struct str text)
{
    agent_ipc_init(&s->msg, AGENT_MSG_DOC_PART, 0);
    s->msg.document = s->which;
    s->msg.kind = kind;
    s->msg.line = line;
    POSTERN_ASSERT(agent_ipc_put(s->msg.text, AGENT_DOC_PART_MAX, &s->msg.text_len, text));
    return loader_tell(&s->msg, s->err);
}

/* As many messages as it takes. */
static int say_text(struct saying *s, enum agent_doc_part_kind kind, unsigned line, struct str left)
{
    do {
        size_t n = left.n < AGENT_DOC_PART_MAX ? left.n : AGENT_DOC_PART_MAX;

        if (say(s, kind, kind == AGENT_DOC_TEXT ? 0 : line, (struct str){left.p, n}) == -1) {
            return -1;
        }
        kind = AGENT_DOC_TEXT;
        left = (struct str){left.p + n, left.n - n};
    } while (left.n > 0);
    return 0;
}

static int say_item(struct saying *s, const struct conf_part *part)
{
    if (say_text(s, AGENT_DOC_ITEM, part->line, part->text) == -1) {
        return -1;
    }
    for (size_t i = 0; part->targets != NULL && i < part->targets->n; i++) {
        if (say(s, AGENT_DOC_TARGET, 0, str_of(part->targets->items[i])) == -1) {
            return -1;
        }
    }
    return 0;
}

static int on_part(void *arg, const struct conf_part *part)
{
    struct saying *s = arg;

    if (part->line == 0 && part->text.n > AGENT_DOC_HEAD_MAX) {
        return err_set(&s->too_large, ERR_LIMIT, "what stands outside of its list is too large");
    }
    if (part->line == 0) {
        return say_text(s, AGENT_DOC_HEAD, 0, part->text);
    }
    s->n_items++;
    s->n_bytes += part->text.n;
    for (size_t i = 0; part->targets != NULL && i < part->targets->n; i++) {
        s->n_target_bytes += str_of(part->targets->items[i]).n + 1;
    }
    if (s->n_items > AGENT_DOC_ITEMS_MAX || s->n_bytes > AGENT_DOC_BYTES_MAX ||
        s->n_target_bytes > AGENT_DOC_TARGETS_MAX) {
        err_set(&s->too_large, ERR_LIMIT, "too large to be told to proxies");
        err_expected(&s->too_large, "at most %d elements, and %d MiB as JSON", AGENT_DOC_ITEMS_MAX,
                     AGENT_DOC_BYTES_MAX >> 20);
        return -1;
    }
    return say_item(s, part);
}

int loader_load_document(enum agent_document which, const char *name, const char *text, size_t len,
                         struct err *err)
{
    static const enum conf_document kinds[AGENT_N_DOCUMENTS] = {
        CONF_DOCUMENT_POLICY, CONF_DOCUMENT_MESH, CONF_DOCUMENT_MODES};
    struct saying s = {.which = which, .too_large = ERR_INIT, .err = err};
    struct conf_diag *diag = conf_diag_new();
    int r;

    if (say(&s, AGENT_DOC_SOURCE, 0, str_of(name)) == -1) {
        conf_diag_free(diag);
        return -1;
    }
    if (conf_split(kinds[which], name, text, len, diag, on_part, &s) == 0) {
        r = loader_tell_loaded(s.n_items, 0, err);
    } else if (conf_diag_count(diag) > 0) {
        r = loader_tell_refusal(diag, err);
    } else if (s.too_large.code != ERR_NONE) {
        err_where(&s.too_large, "%s", name);
        r = loader_tell_diagnostic(&s.too_large, err) == -1 ? -1 : loader_tell_loaded(0, 1, err);
    } else {
        r = -1;
    }
    conf_diag_free(diag);
    return r;
}
