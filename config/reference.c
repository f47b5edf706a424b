/* reference: the tables as Markdown. One section a table, in the order in which they are used. */
#include <postern/conf.h>

#include <stdio.h>

#include "config_priv.h"

static bool has_defaults(const struct table *t)
{
    for (size_t i = 0; i < t->n_fields; i++) {
        if (t->fields[i].def != NULL || t->fields[i].def_doc != NULL) {
            return true;
        }
    }
    return false;
}

static void write_default(const struct field *f, struct buf *out)
{
    if (f->required) {
        buf_printf(out, "required");
    } else if (f->type == TYPE_MAP && f->def_doc == NULL && !f->list && has_defaults(f->table)) {
        buf_printf(out, "as there");
    } else if (f->def_doc != NULL) {
        buf_printf(out, "%s", f->def_doc);
    } else if (f->def != NULL) {
        buf_printf(out, "`%s`", f->def);
    } else {
        buf_printf(out, "none");
    }
}

static void write_type(const struct field *f, const char *key_path, struct buf *out)
{
    if (f->type == TYPE_MAP) {
        if (f->type_doc != NULL) {
            buf_printf(out, "%s, see ", f->type_doc);
        } else {
            buf_printf(out, "%s", f->list ? "list of mappings, see " : "mapping, see ");
        }
        buf_printf(out, "`%s%s%s`", key_path, f->name, f->list ? "[]" : "");
        return;
    }
    if (f->list) {
        buf_printf(out, f->may_be_single ? "one, or a list: " : "list: ");
    }
    value_type_doc(f, out);
}

static void write_table(const struct table *t, const char *key_path, struct buf *out)
{
    buf_printf(out, "| key | type | default | meaning |\n|---|---|---|---|\n");
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct field *f = &t->fields[i];
        buf_printf(out, "| `%s` | ", f->name);
        write_type(f, key_path, out);
        buf_printf(out, " | ");
        write_default(f, out);
        if (f->level > 1) {
            buf_printf(out, " | %s Level %u. |\n", f->doc, f->level);
        } else {
            buf_printf(out, " | %s |\n", f->doc);
        }
    }
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct field *f = &t->fields[i];
        if (f->type != TYPE_MAP) {
            continue;
        }
        char inner[200];
        snprintf(inner, sizeof(inner), "%s%s%s.", key_path, f->name, f->list ? "[]" : "");
        buf_printf(out, "\n## `%s%s%s`\n", key_path, f->name, f->list ? "[]" : "");
        if (f->table->doc != NULL) {
            buf_printf(out, "%s\n", f->table->doc);
        }
        buf_printf(out, "\n");
        write_table(f->table, inner, out);
    }
}

bool reference_write(const char *kind, const struct table *t, struct buf *out)
{
    buf_printf(out, "# Kind %s\n", kind);
    buf_printf(out, "Made from the tables of `config/` by `conf-reference`; do not edit.\n\n");
    buf_printf(out, "%s\n\n", t->doc);
    write_table(t, "", out);
    return true;
}
