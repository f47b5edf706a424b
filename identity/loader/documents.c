/* A document for proxies: parsed and compiled as strictly as a proxy would, and said in parts that
 * others can hand on without parsing them. */
#include "loader_priv.h"

#include <postern/agent_docs.h>
#include <postern/policy.h>
#include <postern/policy_source.h>

struct saying {
    struct agent_msg_doc_part msg;
    struct agent_doc_size size;
    const char *source;
    struct err refused; /* ERR_NONE: it is good */
    struct err *err;    /* of the channel */
};

static int say(struct saying *s, enum agent_doc_part_kind kind, unsigned line, struct str text)
{
    agent_ipc_init(&s->msg, AGENT_MSG_DOC_PART, 0);
    s->msg.document = s->size.which;
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

/* As a proxy will: what it would refuse is not told to any. */
static int compile(struct saying *s, const struct conf_policy *conf)
{
    struct policy *p = policy_new(conf, &s->refused);

    if (p == NULL) {
        return -1;
    }
    policy_free(p);
    return 0;
}

static int on_part(void *arg, const struct conf_part *part)
{
    struct saying *s = arg;

    if (part->policy != NULL && compile(s, part->policy) == -1) {
        return -1;
    }
    if (part->line == 0) {
        if (agent_doc_size_head(part->text, &s->refused) == -1) {
            return err_where(&s->refused, "%s", s->source);
        }
        return say_text(s, AGENT_DOC_HEAD, 0, part->text);
    }
    if (agent_doc_size_item(&s->size, s->source, part->line, part->text,
                            part->targets != NULL ? (const char *const *)part->targets->items
                                                  : NULL,
                            part->targets != NULL ? part->targets->n : 0, &s->refused) == -1) {
        return -1;
    }
    return say_item(s, part);
}

/* A policy may be Istio's or Kubernetes'; what is doubtful about one of these comes at its end. */
static int split(struct saying *s, const char *name, struct str text, const char *reader,
                 struct conf_diag *diag, struct conf_diag *doubts)
{
    static const enum conf_document kinds[AGENT_N_DOCUMENTS] = {
        CONF_DOCUMENT_POLICY, CONF_DOCUMENT_MESH, CONF_DOCUMENT_MODES};
    struct policy_source source;
    int r;

    if (s->size.which != AGENT_DOCUMENT_POLICY) {
        return conf_split(kinds[s->size.which], name, text.p, text.n, diag, on_part, s);
    }
    if (!policy_source_read(str_of(reader), &source)) {
        return err_set(s->err, ERR_USAGE, "for whom the policy is read is not understood");
    }
    r = policy_source_split(&source, name, text, diag, doubts, on_part, s);
    policy_source_deinit(&source);
    return r;
}

static int tell_end(struct saying *s, int split, const struct conf_diag *diag,
                    const struct conf_diag *doubts)
{
    if (split == 0) {
        return loader_tell_doubts(doubts, s->err) == -1
                   ? -1
                   : loader_tell_loaded(s->size.n_items, 0, s->err);
    }
    if (conf_diag_count(diag) > 0) {
        return loader_tell_refusal(diag, s->err);
    }
    if (s->refused.code != ERR_NONE) {
        return loader_tell_diagnostic(&s->refused, s->err) == -1 ? -1
                                                                 : loader_tell_loaded(0, 1, s->err);
    }
    return -1;
}

int loader_load_document(enum agent_document which, const char *name, const char *text, size_t len,
                         const char *reader, struct err *err)
{
    struct saying s = {.size = {.which = which}, .source = name, .refused = ERR_INIT, .err = err};
    struct conf_diag *diag = conf_diag_new();
    struct conf_diag *doubts = conf_diag_new();
    int r = say(&s, AGENT_DOC_SOURCE, 0, str_of(name));

    if (r == 0) {
        r = split(&s, name, (struct str){text, len}, reader, diag, doubts);
        r = tell_end(&s, r, diag, doubts);
    }
    conf_diag_free(doubts);
    conf_diag_free(diag);
    return r;
}
