/* source: a policy out of a file that is ours or theirs, for a data plane, the agent's loader or a
 * tool; and what each of them knows of itself. */
#include "convert_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <postern/policy_source.h>
#include <string.h>

/* --- theirs ----------------------------------------------------------------------------------- */
static void fail(struct conf_diag *errors, const char *name, struct str text, const struct err *e)
{
    struct conf_diag *unsaid = conf_diag_new();
    struct conf_documents *d = conf_documents_parse(name, text.p, text.n, errors, unsaid);
    if (d != NULL) { /* else that is reported */
        conf_documents_report(d, CONF_ERROR, conf_documents_list(d)->child,
                              e->expected[0] != '\0' ? e->expected : NULL,
                              e->advice[0] != '\0' ? e->advice : NULL, "%s", e->what);
    }
    conf_documents_free(d);
    conf_diag_free(unsaid);
}

/* The conversion, done, and what came out; NULL: errors say why. */
static struct policy_convert *convert(const struct policy_source *s, const char *name,
                                      struct str text, struct conf_diag *errors,
                                      struct conf_diag *doubts, struct buf *out)
{
    struct policy_convert_options o = s->options;
    struct err err = ERR_INIT;
    if (o.strict && o.trust_domain == NULL) {
        err_set(&err, ERR_CONFIG, "the trust domain of these policies is not known");
        err_advise(&err, "say 'policy_context.trust_domain', or 'identity.spiffe_id'");
        fail(errors, name, text, &err);
        return NULL;
    }
    o.errors = errors;
    o.doubts = doubts;
    struct policy_convert *c = policy_convert_new(&o);
    policy_convert_add(c, name, text);
    int rc = policy_convert_write(c, out, &err);
    if (rc == 0 && !policy_convert_has_policy(c)) {
        rc = err_set(&err, ERR_CONFIG, "there is no policy in it");
        err_expected(&err, "an AuthorizationPolicy or a NetworkPolicy");
    }
    if (rc != 0 && conf_diag_count(errors) == 0) {
        fail(errors, name, text, &err);
    }
    return rc == 0 ? c : policy_convert_free(c);
}

int policy_source_parse(const struct policy_source *s, const char *name, struct str text,
                        struct conf_diag *errors, struct conf_diag *doubts,
                        struct conf_policy **ret)
{
    if (!conf_policy_is_foreign(text)) {
        return conf_parse_policy(name, text.p, text.n, errors, ret);
    }
    struct buf out = BUF_INIT(CONVERT_TEXT_MAX);
    struct policy_convert *c = convert(s, name, text, errors, doubts, &out);
    struct conf_policy *conf = NULL;
    int rc = -1;
    if (c != NULL) {
        rc = conf_parse_policy(name, (const char *)buf_head(&out), buf_len(&out), errors, &conf);
    }
    for (size_t i = 0; rc == 0 && i < conf->n_rules; i++) {
        conf->rules[i].line = policy_convert_line(c, i);
    }
    if (rc == 0) {
        *ret = conf;
    }
    policy_convert_free(c);
    buf_reset(&out);
    return rc;
}

int policy_source_load(const struct policy_source *s, const char *path, struct conf_diag *errors,
                       struct conf_diag *doubts, struct conf_policy **ret)
{
    mem_autofree char *text = NULL;
    size_t len = 0;
    struct err err = ERR_INIT;
    if (os_read_file(path, CONF_POLICY_FILE_MAX, false, &text, &len, &err) != 0) {
        return conf_load_policy(path, errors, ret); /* tells it its way */
    }
    return policy_source_parse(s, path, (struct str){text, len}, errors, doubts, ret);
}

/* --- in parts --------------------------------------------------------------------------------- */
struct parts {
    const struct policy_convert *c;
    size_t n;
    conf_part_fn emit;
    void *arg;
};

static int on_part(void *arg, const struct conf_part *part)
{
    struct parts *p = arg;
    struct conf_part own = *part;
    if (part->line != 0) {
        own.line = policy_convert_line(p->c, p->n++);
    }
    return p->emit(p->arg, &own);
}

int policy_source_split(const struct policy_source *s, const char *name, struct str text,
                        struct conf_diag *errors, struct conf_diag *doubts, conf_part_fn emit,
                        void *arg)
{
    if (!conf_policy_is_foreign(text)) {
        return conf_split(CONF_DOCUMENT_POLICY, name, text.p, text.n, errors, emit, arg);
    }
    struct buf out = BUF_INIT(CONVERT_TEXT_MAX);
    struct policy_convert *c = convert(s, name, text, errors, doubts, &out);
    struct parts p = {.c = c, .emit = emit, .arg = arg};
    int rc = -1;
    if (c != NULL) {
        rc = conf_split(CONF_DOCUMENT_POLICY, name, (const char *)buf_head(&out), buf_len(&out),
                        errors, on_part, &p);
    }
    policy_convert_free(c);
    buf_reset(&out);
    return rc;
}
