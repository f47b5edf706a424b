/* documents: files of other systems as trees, for whoever reads them: conf_tree.h. */
#include <postern/conf_tree.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_priv.h"

struct conf_documents {
    struct context errors, doubts;
    char *name; /* owned */
    struct tree *tree;
};

struct conf_documents *conf_documents_parse(const char *name, const char *text, size_t len,
                                            struct conf_diag *errors, struct conf_diag *doubts)
{
    struct conf_documents *d = mem_must_new(struct conf_documents);
    size_t before = diag_total(errors);
    d->name = mem_must_strdup(name);
    d->errors = (struct context){
        .diag = errors, .file = d->name, .dir = "/", .file_no = diag_next_file(errors)};
    d->doubts = (struct context){
        .diag = doubts, .file = d->name, .dir = "/", .file_no = diag_next_file(doubts)};
    d->tree = tree_parse_documents(&d->errors, text, len);
    if (d->tree == NULL || diag_total(errors) != before) {
        return conf_documents_free(d);
    }
    return d;
}

struct conf_documents *conf_documents_free(struct conf_documents *d)
{
    if (d != NULL) {
        tree_free(d->tree);
        free(d->name);
        free(d);
    }
    return NULL;
}

const struct node *conf_documents_list(const struct conf_documents *d)
{
    return tree_root(d->tree);
}

const char *conf_documents_name(const struct conf_documents *d)
{
    return d->name;
}

void conf_documents_report(const struct conf_documents *d, enum conf_severity severity,
                           const struct node *at, const char *expected, const char *advice,
                           const char *fmt, ...)
{
    struct context c = severity == CONF_ERROR ? d->errors : d->doubts;
    char what[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    /* Texts of the file may stand in it. */
    struct str text = str_of(what);
    for (size_t i = 0; i < text.n; i++) {
        for (size_t n = str_control(text, i); n > 0; n--) {
            what[i + n - 1] = '?';
        }
    }
    report_at(&c, at->line, at->column, expected, advice, "%s", what);
}

/* --- which of the two ------------------------------------------------------------------------- */
static bool begins_a_line(struct str text, const char *what)
{
    size_t n = strlen(what);
    const char *p = text.p;
    for (const char *end = text.p + text.n; p != NULL && (size_t)(end - p) >= n;) {
        if (memcmp(p, what, n) == 0) {
            return true;
        }
        p = memchr(p, '\n', (size_t)(end - p));
        p = p != NULL ? p + 1 : NULL;
    }
    return false;
}

/* Ours has no apiVersion, but may name one far inside: so the first document is looked at, where
 * the word stands anywhere. */
bool conf_policy_is_foreign(struct str text)
{
    static const char word[] = "apiVersion";
    if (text.n == 0 || text.n > CONFIG_FILE_MAX ||
        memmem(text.p, text.n, word, sizeof(word) - 1) == NULL) {
        return false;
    }
    struct conf_diag *diag = conf_diag_new();
    struct conf_documents *d = conf_documents_parse("", text.p, text.n, diag, diag);
    const struct node *n = d != NULL ? conf_documents_list(d)->child : NULL;
    while (n != NULL && node_is_null(n)) {
        n = n->next;
    }
    bool foreign = d != NULL ? n != NULL && n->kind == NODE_MAP && node_get(n, word) != NULL
                             : begins_a_line(text, "apiVersion:");
    conf_documents_free(d);
    conf_diag_free(diag);
    return foreign;
}
