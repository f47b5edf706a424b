/* write: rules as the text of a Policy file, read again by the reader of policies: what it does not
 * take is no result. */
#include "convert_priv.h"

bool write_quoted(struct buf *out, const char *text)
{
    bool ok = buf_append(out, "\"", 1);
    for (const char *p = text; *p != '\0' && ok; p++) {
        unsigned char ch = (unsigned char)*p;
        if (ch == '"' || ch == '\\') {
            ok = buf_printf(out, "\\%c", ch);
        } else if (ch < 0x20 || ch == 0x7f) {
            ok = buf_printf(out, "\\x%02x", ch);
        } else {
            ok = buf_append(out, p, 1);
        }
    }
    return ok && buf_append(out, "\"", 1);
}

static bool write_texts(struct buf *out, const struct texts *t, bool quoted)
{
    bool ok = buf_append(out, "[", 1);
    for (size_t i = 0; i < t->n && ok; i++) {
        ok = (i == 0 || buf_append(out, ", ", 2)) &&
             (quoted ? write_quoted(out, t->items[i]) : buf_printf(out, "%s", t->items[i]));
    }
    return ok && buf_append(out, "]", 1);
}

static bool write_named(struct buf *out, const struct named_list *l)
{
    bool ok = true;
    for (size_t i = 0; i < l->n && ok; i++) {
        ok = buf_printf(out, "          - {name: ") && write_quoted(out, l->items[i].name);
        if (l->items[i].values.n == 0) {
            ok = ok && buf_printf(out, ", present: true}\n");
        } else {
            ok = ok && buf_printf(out, ", values: ") &&
                 write_texts(out, &l->items[i].values, true) && buf_printf(out, "}\n");
        }
    }
    return ok;
}

static bool write_entries(struct buf *out, const char *key, const struct entries *e)
{
    bool ok = e->n == 0 || buf_printf(out, "    %s:\n", key);
    for (size_t i = 0; i < e->n && ok; i++) {
        const char *begin = "      - ";
        for (size_t k = 0; k < N_LISTS && ok; k++) {
            const struct texts *t = &e->items[i].lists[k];
            if (t->n > 0) {
                bool ports = k == LIST_PORTS || k == LIST_NOT_PORTS;
                ok = buf_printf(out, "%s%s: ", begin, list_keys[k].name) &&
                     write_texts(out, t, !ports) && buf_append(out, "\n", 1);
                begin = "        ";
            }
        }
        for (size_t k = 0; k < N_NAMED && ok; k++) {
            const struct named_list *l = &e->items[i].named[k];
            if (l->n > 0) {
                ok = buf_printf(out, "%s%s:\n", begin, named_keys[k].name) && write_named(out, l);
                begin = "        ";
            }
        }
    }
    return ok;
}

static bool write_reason(struct buf *out, const struct rule *r)
{
    return buf_printf(out, "    reason: ") && write_quoted(out, r->reason) &&
           buf_append(out, "\n", 1);
}

static bool write_rule(const struct policy_convert *c, struct buf *out, const struct rule *r)
{
    static const char *const actions[] = {
        [CONF_ALLOW] = "ALLOW", [CONF_DENY] = "DENY", [CONF_AUDIT] = "AUDIT"};
    return buf_printf(out, "\n  # %s\n  - name: %s\n    action: %s\n", r->comment, r->name,
                      actions[r->action]) &&
           (!r->dry_run || buf_printf(out, "    mode: dry-run\n")) &&
           (!c->options.strict || write_reason(out, r)) &&
           (r->targets.n == 0 ||
            (buf_printf(out, "    target:\n      principals: ") &&
             write_texts(out, &r->targets, true) && buf_append(out, "\n", 1))) &&
           write_entries(out, "from", &r->from) && write_entries(out, "to", &r->to);
}

/* PeerAuthentications alone are none: `rules: []` would deny everything to whoever takes it. */
bool policy_convert_has_policy(const struct policy_convert *c)
{
    return c->istio.n + c->network.n > 0;
}

static bool write_all(const struct policy_convert *c, struct buf *out)
{
    bool ok = buf_printf(out, "# Made by 'postern policy convert'.\n");
    for (size_t i = 0; i < c->head.n && ok; i++) {
        ok = buf_printf(out, "#%s%s\n", c->head.items[i][0] != '\0' ? " " : "", c->head.items[i]);
    }
    if (!policy_convert_has_policy(c)) {
        return ok;
    }
    ok = ok && buf_printf(out, "kind: Policy\nlevel: 2\nrules:%s\n", c->n_rules == 0 ? " []" : "");
    for (size_t i = 0; i < c->n_rules && ok; i++) {
        ok = write_rule(c, out, &c->rules[i]);
    }
    return ok;
}

/* As its reader takes it. */
static int prove(struct str text, struct err *err)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    int rc = conf_parse_policy("the converted policy", text.p, text.n, diag, &conf);
    if (rc != 0 && err != NULL) {
        *err = *conf_diag_get(diag, 0);
    }
    conf_policy_free(conf);
    conf_diag_free(diag);
    return rc;
}

int write_policy(struct policy_convert *c, struct buf *out, struct err *err)
{
    struct buf made = BUF_INIT(CONVERT_TEXT_MAX);
    int rc = 0;
    if (!write_all(c, &made)) {
        rc = err_set(err, ERR_LIMIT, "the policy would be larger than a file may be");
    } else if (policy_convert_has_policy(c)) {
        rc = prove(buf_str(&made), err);
    }
    if (rc == 0 && !buf_append_str(out, buf_str(&made))) {
        rc = err_set(err, ERR_LIMIT, "the policy does not fit");
    }
    buf_reset(&made);
    return rc;
}
