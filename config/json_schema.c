/*
 * json_schema: the tables as JSON Schema (2020-12), for editors and other programs. It says what
 * tables say and no more: what a check of ours alone knows (whether a pattern can ever match, what
 * must not stand together) is found by `postern check`. Texts that look like numbers have to be
 * quoted for it.
 */
#include <postern/conf.h>

#include <stdio.h>
#include <string.h>

#include "config_priv.h"

struct writer {
    struct buf *out;
    unsigned level; /* of the file that is spoken of: later keys are left out */
    const char *kind;
};

/* --- JSON ------------------------------------------------------------------------------------- */
static void put_text(struct buf *out, const char *text)
{
    buf_printf(out, "\"");
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            buf_printf(out, "\\%c", c);
        } else if (c < 0x20) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_append(out, text, 1);
        }
    }
    buf_printf(out, "\"");
}

static void put_key(struct buf *out, const char *key)
{
    put_text(out, key);
    buf_printf(out, ": ");
}

/* --- one value -------------------------------------------------------------------------------- */
static void put_words(const struct field *f, struct buf *out)
{
    buf_printf(out, "{\"enum\": [");
    for (size_t i = 0; f->words[i] != NULL; i++) {
        buf_printf(out, "%s", i > 0 ? ", " : "");
        put_text(out, f->words[i]);
    }
    buf_printf(out, "]}");
}

static void put_number(const struct field *f, struct buf *out)
{
    bool port = f->type == TYPE_PORT;
    if (f->zero_word != NULL) {
        buf_printf(out, "{\"anyOf\": [{\"const\": ");
        put_text(out, f->zero_word);
        buf_printf(out, "}, ");
    }
    buf_printf(out, "{\"type\": \"integer\", \"minimum\": %llu, \"maximum\": %llu}",
               (unsigned long long)(port && f->min == 0 ? 1 : f->min),
               (unsigned long long)(f->max != 0 ? f->max
                                    : port      ? 65535
                                                : UINT32_MAX));
    buf_printf(out, "%s", f->zero_word != NULL ? "]}" : "");
}

/* Texts of a form of their own; NULL: any text. */
static const char *form_of(enum field_type type)
{
    switch ((int)type) {
    case TYPE_NAME:
        return "^[A-Za-z0-9._:/-]+$";
    case TYPE_DURATION_MS:
        return "^[0-9]+(ms|s|m|h)$";
    case TYPE_DURATION_S:
        return "^[0-9]+(s|m|h)$";
    case TYPE_PERCENT:
        return "^[0-9]+%$";
    case TYPE_SPIFFE_ID:
    case TYPE_ID_TEMPLATE:
        return "^spiffe://[a-z0-9._-]+/.";
    case TYPE_TRUST_DOMAIN:
        return "^[a-z0-9._-]+$";
    case TYPE_UNIX:
        return "^unix:/";
    case TYPE_TIME:
        return "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?$";
    default:
        return NULL;
    }
}

static void put_string(const struct field *f, struct buf *out)
{
    const char *form = form_of(f->type);
    bool sized = f->type == TYPE_TEXT || f->type == TYPE_NAME || f->type == TYPE_PATH;
    buf_printf(out, "{\"type\": \"string\", \"minLength\": 1");
    if (sized && f->max != 0) { /* in bytes, so characters are no more */
        buf_printf(out, ", \"maxLength\": %llu", (unsigned long long)f->max);
    }
    if (form != NULL) {
        buf_printf(out, ", \"pattern\": ");
        put_text(out, form);
    }
    buf_printf(out, "}");
}

static void put_table(const struct writer *w, const struct table *t, const char *kind);

static void put_value(const struct writer *w, const struct field *f)
{
    switch ((int)f->type) {
    case TYPE_MAP:
        if (f->scalar != NULL) {
            buf_printf(w->out, "{\"anyOf\": [{\"type\": \"string\"}, ");
        }
        put_table(w, f->table, NULL);
        buf_printf(w->out, "%s", f->scalar != NULL ? "]}" : "");
        break;
    case TYPE_WORD:
        put_words(f, w->out);
        break;
    case TYPE_BOOL:
        buf_printf(w->out, "{\"type\": \"boolean\"}");
        break;
    case TYPE_UINT:
    case TYPE_PORT:
        put_number(f, w->out);
        break;
    case TYPE_SIZE:
        buf_printf(w->out, "{\"anyOf\": [{\"type\": \"integer\", \"minimum\": 0}, {\"type\": "
                           "\"string\", \"pattern\": \"^[0-9]+(KiB|MiB|GiB)?$\"}]}");
        break;
    case TYPE_MODE: /* 0640 is a number to some and a text to others */
        buf_printf(w->out, "{\"type\": [\"string\", \"integer\"]}");
        break;
    default:
        put_string(f, w->out);
        break;
    }
}

/* --- keys ------------------------------------------------------------------------------------- */
static void put_list(const struct writer *w, const struct field *f)
{
    bool any = f->may_be_single || f->none_word != NULL;
    if (any) {
        buf_printf(w->out, "{\"anyOf\": [");
    }
    if (f->may_be_single) {
        put_value(w, f);
        buf_printf(w->out, ", ");
    }
    if (f->none_word != NULL) {
        buf_printf(w->out, "{\"const\": ");
        put_text(w->out, f->none_word);
        buf_printf(w->out, "}, ");
    }
    buf_printf(w->out,
               "{\"type\": \"array\", %s\"items\": ", f->may_be_empty ? "" : "\"minItems\": 1, ");
    put_value(w, f);
    buf_printf(w->out, "}%s", any ? "]}" : "");
}

static void put_field(const struct writer *w, const struct field *f)
{
    put_key(w->out, f->name);
    buf_printf(w->out, "{\"description\": ");
    put_text(w->out, f->doc);
    buf_printf(w->out, ", \"allOf\": [");
    if (f->list) {
        put_list(w, f);
    } else {
        put_value(w, f);
    }
    buf_printf(w->out, "]}");
}

static bool is_of(const struct writer *w, const struct field *f)
{
    return f->level <= w->level;
}

static void put_table(const struct writer *w, const struct table *t, const char *kind)
{
    size_t n = 0;
    buf_printf(w->out, "{\"type\": \"object\", \"additionalProperties\": false, %s\"required\": [",
               t->empty_advice != NULL ? "\"minProperties\": 1, " : "");
    for (size_t i = 0; i < t->n_fields; i++) {
        if (t->fields[i].required && is_of(w, &t->fields[i])) {
            buf_printf(w->out, "%s", n++ > 0 ? ", " : "");
            put_text(w->out, t->fields[i].name);
        }
    }
    buf_printf(w->out, "],\n\"properties\": {");
    n = 0;
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct field *f = &t->fields[i];
        if (!is_of(w, f)) {
            continue;
        }
        buf_printf(w->out, "%s\n", n++ > 0 ? "," : "");
        if (kind != NULL && strcmp(f->name, "kind") == 0) {
            buf_printf(w->out, "\"kind\": {\"const\": ");
            put_text(w->out, kind);
            buf_printf(w->out, "}");
        } else {
            put_field(w, f);
        }
    }
    buf_printf(w->out, "}}");
}

static bool has_level(const struct table *t, unsigned level)
{
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct field *f = &t->fields[i];
        if (f->level == level || (f->type == TYPE_MAP && has_level(f->table, level))) {
            return true;
        }
    }
    return false;
}

bool json_schema_write(const char *kind, const struct table *t, struct buf *out)
{
    buf_printf(out, "{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n\"title\": ");
    put_text(out, kind);
    buf_printf(out, ",\n\"description\": ");
    put_text(out, t->doc);
    if (!has_level(t, 2)) {
        buf_printf(out, ",\n\"allOf\": [");
        put_table(&(const struct writer){out, CONF_LEVEL, kind}, t, kind);
        return buf_printf(out, "]}\n");
    }
    buf_printf(out, ",\n\"if\": {\"properties\": {\"level\": {\"const\": 1}}},\n\"then\": ");
    put_table(&(const struct writer){out, 1, kind}, t, kind);
    buf_printf(out, ",\n\"else\": ");
    put_table(&(const struct writer){out, CONF_LEVEL, kind}, t, kind);
    return buf_printf(out, "}\n");
}
