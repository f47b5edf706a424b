#include "classes_text.h"

#include <string.h>

enum { ITEMS_SHOWN = 8 };

static bool has(const uint64_t *bits, size_t class)
{
    return bits == NULL || (bits[class / 64] >> (class % 64) & 1) != 0;
}

static const char *fact_noun(const struct fact *f)
{
    static const char *const nouns[] = {
        [FACT_TARGET] = "target", [FACT_PORT] = "port",       [FACT_PEER] = "caller",
        [FACT_SOURCE] = "source", [FACT_METHOD] = "method",   [FACT_HOST] = "host",
        [FACT_PATH] = "path",     [FACT_QUERY] = "parameter", [FACT_HEADER] = "header",
        [FACT_CLAIM] = "claim",
    };
    return nouns[f->kind];
}

/* One class, in words. */
static void put_class(const struct fact *f, const struct class_value *c, struct buf *out)
{
    bool named = f->name != NULL && c->value != NULL;
    switch (c->kind) {
    case CLASS_EXACT:
        POSTERN_ASSERT(c->value != NULL);
        if (named && c->value[1] == '\0') {
            buf_printf(out, "(empty)");
        } else {
            buf_printf(out, "%.*s", (int)(strlen(c->value) - (named ? 1 : 0)), c->value);
        }
        break;
    case CLASS_PATTERN:
        buf_printf(out, "%s", c->like);
        break;
    case CLASS_OTHER:
        buf_printf(out, "any other");
        break;
    case CLASS_UNKNOWN:
        buf_printf(out, f->kind == FACT_CLAIM ? "no token" : "not known");
        break;
    case CLASS_MISSING:
        buf_printf(out, f->kind == FACT_PEER ? "no identity" : "none");
        break;
    }
    buf_printf(out, "%s", c->grpc ? " by gRPC" : "");
}

/* What is chosen of a fact, or (shorter) what is not. */
static void put_classes(const struct fact *f, const uint64_t *bits, struct buf *out)
{
    size_t n = 0;
    bool other = false;
    for (size_t i = 0; i < f->n; i++) {
        n += has(bits, i);
        other = other || (has(bits, i) && f->classes[i].kind == CLASS_OTHER);
    }
    bool but = other && n * 2 > f->n;
    size_t shown = 0;
    size_t left = but ? f->n - n : n;
    buf_printf(out, "%s", but ? "any but " : "");
    for (size_t i = 0; i < f->n && shown < ITEMS_SHOWN; i++) {
        if (has(bits, i) != but) {
            buf_printf(out, "%s", shown++ > 0 ? " or " : "");
            put_class(f, &f->classes[i], out);
        }
    }
    if (left > ITEMS_SHOWN) {
        buf_printf(out, " or %zu more", left - ITEMS_SHOWN);
    }
}

static void put_fact(const struct space *s, const uint64_t *const *chosen, enum fact_kind kind,
                     const char *before, const char *any, struct buf *out)
{
    for (size_t i = 0; i < s->classes->n; i++) {
        if (s->classes->facts[i].kind == kind && chosen[i] != NULL) {
            buf_printf(out, "%s", before);
            put_classes(&s->classes->facts[i], chosen[i], out);
            return;
        }
    }
    buf_printf(out, "%s%s", any[0] != '\0' ? before : "", any);
}

void classes_put_question(const struct space *s, const uint64_t *const *chosen, bool http,
                          struct buf *out)
{
    put_fact(s, chosen, FACT_PEER, "", "anyone", out);
    put_fact(s, chosen, FACT_SOURCE, " from ", "", out);
    put_fact(s, chosen, FACT_TARGET, " -> ", "any workload", out);
    put_fact(s, chosen, FACT_PORT, " port ", "any", out);
    buf_printf(out, http ? ", requests" : ", connections");
    if (!http) {
        return;
    }
    put_fact(s, chosen, FACT_METHOD, " ", "", out);
    put_fact(s, chosen, FACT_HOST, " at host ", "", out);
    put_fact(s, chosen, FACT_PATH, " path ", "", out);
    for (size_t i = 0; i < s->classes->n; i++) {
        const struct fact *f = &s->classes->facts[i];
        bool named = f->name != NULL;
        if (named && chosen[i] != NULL) {
            buf_printf(out, " with %s %s%s", fact_noun(f), f->name != NULL ? f->name : "",
                       f->name != NULL ? " " : "");
            put_classes(f, chosen[i], out);
        }
    }
}

json_t *classes_json(const struct space *s, const uint64_t *const *chosen, bool http)
{
    json_t *facts = json_array();
    for (size_t i = 0; i < s->classes->n; i++) {
        const struct fact *f = &s->classes->facts[i];
        if (chosen[i] == NULL || (!http && fact_is_request(f->kind))) {
            continue;
        }
        json_t *values = json_array();
        for (size_t c = 0; c < f->n; c++) {
            if (has(chosen[i], c)) {
                static const char *const kinds[] = {"exact", "pattern", "other", "missing",
                                                    "unknown"};
                const struct class_value *class = &f->classes[c];
                json_array_append_new(values,
                                      json_pack("{s:s, s:s*, s:s*}", "kind", kinds[class->kind],
                                                "like", class->like, "value", class->value));
            }
        }
        json_array_append_new(facts, json_pack("{s:s, s:s*, s:o}", "fact", fact_noun(f), "name",
                                               f->name, "values", values));
    }
    return facts;
}
