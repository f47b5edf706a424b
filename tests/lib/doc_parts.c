#include "doc_parts.h"

#include <postern/mem.h>

struct building {
    enum agent_document which;
    struct agent_doc *doc;
    bool ok;
};

static void add(struct building *b, enum agent_doc_part_kind kind, unsigned line, struct str text)
{
    struct agent_msg_doc_part m;

    agent_ipc_init(&m, AGENT_MSG_DOC_PART, 0);
    m.document = b->which;
    m.kind = kind;
    m.line = line;
    b->ok = b->ok && agent_ipc_put(m.text, AGENT_DOC_PART_MAX, &m.text_len, text) &&
            agent_ipc_check(AGENT_WAY_LOADER_SUPERVISOR, &m, sizeof(m), false) &&
            agent_doc_add(b->doc, &m);
}

static int on_part(void *arg, const struct conf_part *part)
{
    struct building *b = arg;
    enum agent_doc_part_kind kind = part->line == 0 ? AGENT_DOC_HEAD : AGENT_DOC_ITEM;
    struct str left = part->text;
    /* Small pieces, so that there are several. */
    const size_t piece = kind == AGENT_DOC_HEAD ? AGENT_DOC_PART_MAX : 100;

    do {
        size_t n = left.n < piece ? left.n : piece;

        add(b, kind, kind == AGENT_DOC_TEXT ? 0 : part->line, (struct str){left.p, n});
        kind = AGENT_DOC_TEXT;
        left = (struct str){left.p + n, left.n - n};
    } while (left.n > 0);
    for (size_t i = 0; part->targets != NULL && i < part->targets->n; i++) {
        add(b, AGENT_DOC_TARGET, 0, str_of(part->targets->items[i]));
    }
    return b->ok ? 0 : -1;
}

static int pass_on(void *arg, const void *msg)
{
    struct agent_doc *to = arg;

    return agent_ipc_check(AGENT_WAY_SUPERVISOR_SERVICE, msg, sizeof(struct agent_msg_doc_part),
                           false) &&
                   agent_doc_add(to, msg)
               ? 0
               : -1;
}

bool doc_from_text(enum agent_document which, const char *name, const char *text, size_t len,
                   struct agent_doc *d)
{
    static const enum conf_document kinds[AGENT_N_DOCUMENTS] = {
        CONF_DOCUMENT_POLICY, CONF_DOCUMENT_MESH, CONF_DOCUMENT_MODES};
    struct conf_diag *diag = conf_diag_new();
    struct agent_doc supervisors;
    struct building b = {.which = which, .doc = &supervisors, .ok = true};
    bool ok;

    agent_doc_init(&supervisors);
    add(&b, AGENT_DOC_SOURCE, 0, str_of(name));
    ok = conf_split(kinds[which], name, text, len, diag, on_part, &b) == 0 && b.ok &&
         agent_doc_send(&supervisors, which, pass_on, d) == 0;
    agent_doc_deinit(&supervisors);
    conf_diag_free(diag);
    return ok;
}
