/* classes: the facts that policies ask about, and a question of one class of each. */
#include "classes.h"

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classes_priv.h"

enum { SEPARATOR = 0x1f, CLASSES_OF_FACT_MAX = 60000, PAIRS_MAX = 24 };

struct making {
    struct classes *classes;
    const struct conf_policy *const *confs;
    size_t n_confs;
    struct err *err;
};

/* --- facts -------------------------------------------------------------------------------------
 */
struct class_value *fact_add(struct fact *f, enum class_kind kind, const char *value,
                             const char *like)
{
    MEM_GROW(f->classes, f->n, f->cap, 16);
    struct class_value *c = &f->classes[f->n++];
    *c = (struct class_value){.kind = kind,
                              .value = value != NULL ? mem_must_strdup(value) : NULL,
                              .like = like != NULL ? mem_must_strdup(like) : NULL};
    return c;
}

static struct fact *new_fact(struct making *m, enum fact_kind kind, const char *name)
{
    if (m->classes->n == CLASSES_FACTS_MAX) {
        err_set(m->err, ERR_LIMIT, "more than %d different headers, parameters and claims",
                CLASSES_FACTS_MAX);
        return NULL;
    }
    struct fact *f = &m->classes->facts[m->classes->n++];
    f->kind = kind;
    f->name = name != NULL ? mem_must_strdup(name) : NULL;
    return f;
}

static int finish(struct making *m, const struct fact *f, bool whole)
{
    if (!whole || f->n > CLASSES_OF_FACT_MAX) {
        return err_set(m->err, ERR_LIMIT, "patterns that overlap in too many ways");
    }
    return 0;
}

/* Each from or to entry of each rule of each policy, as the statement behind. */
#define EACH_RULE(m, r)                                                                            \
    for (size_t side_ = 0; side_ < (m)->n_confs; side_++)                                          \
        for (const struct conf_rule *r = (m)->confs[side_]->rules;                                 \
             r < (m)->confs[side_]->rules + (m)->confs[side_]->n_rules; r++)
#define EACH_FROM(m, r, f)                                                                         \
    EACH_RULE(m, r)                                                                                \
    for (const struct conf_policy_from *f = (r)->from; f < (r)->from + (r)->n_from; f++)
#define EACH_TO(m, r, t)                                                                           \
    EACH_RULE(m, r)                                                                                \
    for (const struct conf_policy_to *t = (r)->to; t < (r)->to + (r)->n_to; t++)

static void shape_principals(struct shapes *s, const struct conf_strings *list)
{
    for (size_t i = 0; i < list->n; i++) {
        shape_principal(s, list->items[i]);
    }
}

static int add_target(struct making *m)
{
    struct fact *f = new_fact(m, FACT_TARGET, NULL);
    struct shapes s = {.items = NULL};
    EACH_RULE(m, r)
    {
        shape_principals(&s, &r->target_principals);
    }
    bool whole = shapes_run(&s, AUTOMATON_SPIFFE, "spiffe://", f);
    shapes_deinit(&s);
    fact_add(f, CLASS_MISSING, NULL, NULL);
    return finish(m, f, whole);
}

static void shape_from(struct shapes *s, const struct conf_policy_from *f)
{
    const struct conf_strings *namespaces[] = {&f->namespaces, &f->not_namespaces};
    const struct conf_strings *accounts[] = {&f->service_accounts, &f->not_service_accounts};
    const struct conf_strings *domains[] = {&f->trust_domains, &f->not_trust_domains};
    shape_principals(s, &f->principals);
    shape_principals(s, &f->not_principals);
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < namespaces[k]->n; i++) {
            shape_namespace(s, namespaces[k]->items[i], false);
        }
        for (size_t i = 0; i < accounts[k]->n; i++) {
            shape_namespace(s, accounts[k]->items[i], true);
        }
        for (size_t i = 0; i < domains[k]->n; i++) {
            shape_domain(s, domains[k]->items[i]);
        }
    }
}

static bool begins_any(const struct shapes *s, const char *start)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->items[i].item != NULL && strncmp(s->items[i].item, start, strlen(start)) == 0) {
            return true;
        }
    }
    return false;
}

static int add_peer(struct making *m)
{
    static const char *const kinds[] = {"dns:", "uri:", "cn:", "ou:", "ip:", "x509:"};
    struct fact *f = new_fact(m, FACT_PEER, NULL);
    struct shapes s = {.items = NULL};
    EACH_FROM(m, r, from)
    {
        shape_from(&s, from);
    }
    bool whole = shapes_run(&s, AUTOMATON_SPIFFE, "spiffe://", f);
    for (size_t i = 0; whole && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t first = f->n;
        /* Names of ordinary authorities: one of them stands for all kinds that nobody speaks of. */
        whole = (i > 0 && !begins_any(&s, kinds[i])) || shapes_run(&s, AUTOMATON_TEXT, kinds[i], f);
        for (size_t k = first; k < f->n; k++) {
            struct class_value *c = &f->classes[k];
            if (c->kind == CLASS_OTHER) {
                c->kind = CLASS_PATTERN;
                c->like = mem_must_printf("%s*", kinds[i]);
            }
        }
    }
    shapes_deinit(&s);
    fact_add(f, CLASS_MISSING, NULL, NULL);
    return finish(m, f, whole);
}

static int add_ports(struct making *m)
{
    struct fact *f = new_fact(m, FACT_PORT, NULL);
    bool *named = mem_must_calloc(UINT16_MAX + 1, sizeof(*named));
    EACH_TO(m, r, t)
    {
        for (size_t i = 0; i < t->n_ports; i++) {
            named[t->ports[i]] = true;
        }
        for (size_t i = 0; i < t->n_not_ports; i++) {
            named[t->not_ports[i]] = true;
        }
    }
    bool other = false;
    for (unsigned port = 1; port <= UINT16_MAX; port++) {
        char text[8];
        if (!named[port] && other) {
            continue;
        }
        other = other || !named[port];
        (void)snprintf(text, sizeof(text), "%u", port);
        fact_add(f, named[port] ? CLASS_EXACT : CLASS_OTHER, text, NULL)->port = (uint16_t)port;
    }
    free(named);
    return finish(m, f, true);
}

static bool has_value(const struct fact *f, const char *value)
{
    for (size_t i = 0; i < f->n; i++) {
        if (strcmp(f->classes[i].value, value) == 0) {
            return true;
        }
    }
    return false;
}

static int add_methods(struct making *m)
{
    static const char *const others[] = {"PROPFIND", "REPORT", "SEARCH", "LOCK", "UNLOCK",
                                         "MKCOL",    "COPY",   "MOVE",   "BIND"};
    struct fact *f = new_fact(m, FACT_METHOD, NULL);
    EACH_TO(m, r, t)
    {
        const struct conf_strings *lists[] = {&t->methods, &t->not_methods};
        for (size_t k = 0; k < 2; k++) {
            for (size_t i = 0; i < lists[k]->n; i++) {
                if (!has_value(f, lists[k]->items[i])) {
                    fact_add(f, CLASS_EXACT, lists[k]->items[i], NULL);
                }
            }
        }
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (!has_value(f, others[i])) {
            fact_add(f, CLASS_OTHER, others[i], NULL);
            break;
        }
    }
    return finish(m, f, true);
}

static int add_hosts(struct making *m)
{
    struct fact *f = new_fact(m, FACT_HOST, NULL);
    struct shapes s = {.items = NULL};
    EACH_TO(m, r, t)
    {
        for (size_t i = 0; i < t->hosts.n; i++) {
            shape_text(&s, t->hosts.items[i], true);
        }
        for (size_t i = 0; i < t->not_hosts.n; i++) {
            shape_text(&s, t->not_hosts.items[i], true);
        }
    }
    bool whole = shapes_run(&s, AUTOMATON_TEXT, "", f);
    shapes_deinit(&s);
    fact_add(f, CLASS_MISSING, NULL, NULL);
    return finish(m, f, whole);
}

/* Each path as a request of gRPC too, if anybody speaks of that. */
static int add_paths(struct making *m)
{
    struct fact *f = new_fact(m, FACT_PATH, NULL);
    struct shapes s = {.items = NULL};
    bool grpc = false;
    EACH_TO(m, r, t)
    {
        const struct conf_strings *lists[] = {&t->paths, &t->not_paths, &t->grpc, &t->not_grpc};
        for (size_t k = 0; k < 4; k++) {
            for (size_t i = 0; i < lists[k]->n; i++) {
                if (k < 2) {
                    shape_path(&s, lists[k]->items[i]);
                } else {
                    shape_grpc(&s, lists[k]->items[i]);
                    grpc = true;
                }
            }
        }
    }
    if (grpc) {
        shape_method_path(&s);
    }
    bool whole = shapes_run(&s, AUTOMATON_PATH, "/", f);
    shapes_deinit(&s);
    size_t n = f->n;
    for (size_t i = 0; grpc && i < n; i++) {
        fact_add(f, f->classes[i].kind, f->classes[i].value, f->classes[i].like)->grpc = true;
    }
    fact_add(f, CLASS_EXACT, "*", NULL); /* OPTIONS of the server as a whole */
    return finish(m, f, whole);
}

/* --- facts with names --------------------------------------------------------------------------
 */
static const struct conf_policy_values *values_of(const struct conf_policy_from *f,
                                                  const struct conf_policy_to *t,
                                                  enum fact_kind kind, bool negative)
{
    if (kind == FACT_CLAIM) {
        return f == NULL ? NULL : negative ? &f->not_claims : &f->claims;
    }
    if (t == NULL) {
        return NULL;
    }
    return kind == FACT_QUERY ? (negative ? &t->not_query : &t->query)
                              : (negative ? &t->not_headers : &t->headers);
}

/* Several values of one name, from those that can be told apart. */
static void combine(struct fact *f)
{
    size_t n = f->n;
    bool each = n <= CLASSES_EACH;
    for (size_t i = 0; i < n; i++) {
        char *one = f->classes[i].value;
        f->classes[i].value = mem_must_printf("%s%c", one, SEPARATOR);
        free(one);
    }
    for (unsigned set = 1; each && set < 1U << n; set++) {
        struct buf value = BUF_INIT(1 << 20);
        struct buf like = BUF_INIT(1 << 20);
        for (size_t i = 0; i < n; i++) {
            const struct class_value *c = &f->classes[i];
            if ((set >> i & 1) != 0) {
                const char *said = c->kind == CLASS_PATTERN ? c->like : NULL;
                buf_printf(&value, "%s", c->value);
                buf_printf(&like, "%s", buf_len(&like) > 0 ? " and " : "");
                buf_printf(&like, "%.*s",
                           said != NULL             ? (int)strlen(said)
                           : c->kind == CLASS_OTHER ? 9
                                                    : (int)strlen(c->value) - 1,
                           said != NULL             ? said
                           : c->kind == CLASS_OTHER ? "any other"
                                                    : c->value);
            }
        }
        buf_append(&value, "", 1);
        buf_append(&like, "", 1);
        if ((set & (set - 1)) != 0) {
            fact_add(f, CLASS_PATTERN, (const char *)buf_head(&value),
                     (const char *)buf_head(&like));
        }
        buf_reset(&value);
        buf_reset(&like);
    }
    for (size_t i = 0; !each && n <= PAIRS_MAX && i < n; i++) {
        for (size_t k = i + 1; k < n; k++) {
            mem_autofree char *value =
                mem_must_printf("%s%s", f->classes[i].value, f->classes[k].value);
            fact_add(f, CLASS_PATTERN, value, "two values");
        }
    }
}

static int add_named(struct making *m, enum fact_kind kind, const char *name)
{
    for (size_t i = 0; i < m->classes->n; i++) {
        const struct fact *f = &m->classes->facts[i];
        if (f->kind == kind && f->name != NULL && strcmp(f->name, name) == 0) {
            return 0;
        }
    }
    struct fact *f = new_fact(m, kind, name);
    if (f == NULL) {
        return -1;
    }
    struct shapes s = {.items = NULL};
    EACH_RULE(m, r)
    {
        for (size_t i = 0; i < r->n_from + r->n_to; i++) {
            for (int negative = 0; negative < 2; negative++) {
                const struct conf_policy_values *list =
                    values_of(i < r->n_from ? &r->from[i] : NULL,
                              i < r->n_from ? NULL : &r->to[i - r->n_from], kind, negative == 1);
                for (size_t k = 0; list != NULL && k < list->n; k++) {
                    const struct conf_policy_value *v = &list->items[k];
                    for (size_t x = 0; strcmp(v->name, name) == 0 && x < v->values.n; x++) {
                        shape_text(&s, v->values.items[x], false);
                    }
                }
            }
        }
    }
    bool whole = shapes_run(&s, AUTOMATON_TEXT, "", f);
    shapes_deinit(&s);
    if (whole && f->n > PAIRS_MAX * 4) {
        whole = false;
    }
    fact_add(f, CLASS_EXACT, "", NULL); /* there, and empty */
    combine(f);
    fact_add(f, CLASS_MISSING, NULL, NULL);
    if (kind != FACT_HEADER) {
        fact_add(f, CLASS_UNKNOWN, NULL, NULL);
    }
    return finish(m, f, whole);
}

static int add_all_named(struct making *m)
{
    int rc = 0;
    EACH_RULE(m, r)
    {
        for (size_t i = 0; i < r->n_from + r->n_to; i++) {
            for (unsigned which = 0; which < 6; which++) {
                enum fact_kind kind = (enum fact_kind)(FACT_QUERY + which / 2);
                const struct conf_policy_values *list =
                    values_of(i < r->n_from ? &r->from[i] : NULL,
                              i < r->n_from ? NULL : &r->to[i - r->n_from], kind, which % 2 == 1);
                for (size_t k = 0; rc == 0 && list != NULL && k < list->n; k++) {
                    rc = add_named(m, kind, list->items[k].name);
                }
            }
        }
    }
    return rc;
}

struct classes *classes_new(const struct conf_policy *const *confs, size_t n, struct err *err)
{
    struct classes *c = mem_must_new(struct classes);
    struct making m = {c, confs, n, err};
    if (add_target(&m) != 0 || add_ports(&m) != 0 || add_peer(&m) != 0) {
        return classes_free(c);
    }
    struct fact *source = new_fact(&m, FACT_SOURCE, NULL);
    if (source == NULL || classes_sources(source, confs, n) != 0) {
        err_set(err, ERR_LIMIT, "too many address blocks");
        return classes_free(c);
    }
    if (add_methods(&m) != 0 || add_hosts(&m) != 0 || add_paths(&m) != 0 ||
        add_all_named(&m) != 0) {
        return classes_free(c);
    }
    return c;
}

struct classes *classes_free(struct classes *c)
{
    for (size_t i = 0; c != NULL && i < c->n; i++) {
        struct fact *f = &c->facts[i];
        for (size_t k = 0; k < f->n; k++) {
            free(f->classes[k].value);
            free(f->classes[k].like);
        }
        free(f->classes);
        free(f->name);
    }
    free(c);
    return NULL;
}

/* --- questions ---------------------------------------------------------------------------------
 */
static void put_encoded(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (plain) {
            buf_append(out, &c, 1);
        } else {
            buf_printf(out, "%%%02X", (unsigned)(uint8_t)c);
        }
    }
}

/* The next of several values; false: there is none. */
static bool next_value(const char **at, struct str *ret)
{
    const char *end = strchr(*at, SEPARATOR);
    if (end == NULL) {
        return false;
    }
    *ret = (struct str){*at, (size_t)(end - *at)};
    *at = end + 1;
    return true;
}

static void fill_named(const struct fact *f, const struct class_value *c, struct class_room *room)
{
    const char *at = c->value;
    struct str value;
    while (next_value(&at, &value)) {
        struct policy_header one = {str_of(f->name), value};
        if (f->kind == FACT_HEADER) {
            room->headers[room->header_list.n++] = one;
        } else if (f->kind == FACT_CLAIM) {
            room->claims[room->claim_list.n++] = one;
        } else {
            buf_printf(&room->text, "%s", buf_len(&room->text) > 0 ? "&" : "");
            put_encoded(&room->text, one.name);
            buf_printf(&room->text, "=");
            put_encoded(&room->text, value);
        }
    }
}

static void fill(const struct fact *f, const struct class_value *c, struct policy_query *q)
{
    switch (f->kind) {
    case FACT_TARGET:
        q->target = str_of(c->value);
        break;
    case FACT_PORT:
        q->port = c->port;
        break;
    case FACT_PEER:
        q->peer = str_of(c->value);
        break;
    case FACT_SOURCE:
        q->source = (const struct sockaddr *)&c->source;
        break;
    case FACT_METHOD:
        q->method = str_of(c->value);
        break;
    case FACT_HOST:
        q->host = str_of(c->value);
        break;
    case FACT_PATH:
        q->path = str_of(c->value);
        q->grpc = c->grpc;
        break;
    case FACT_QUERY:
    case FACT_HEADER:
    case FACT_CLAIM:
        break;
    }
}

void classes_question(const struct classes *c, const size_t *choice, bool http,
                      struct class_room *room, struct policy_query *ret)
{
    bool unknown = false;
    bool no_token = false;
    *ret = (struct policy_query){.http = http};
    buf_consume(&room->text, buf_len(&room->text));
    room->header_list = (struct policy_headers){0, room->headers};
    room->claim_list = (struct policy_claims){0, room->claims};
    for (size_t i = 0; i < c->n; i++) {
        const struct fact *f = &c->facts[i];
        const struct class_value *v = &f->classes[choice[i]];
        unknown = unknown || (f->kind == FACT_QUERY && v->kind == CLASS_UNKNOWN);
        no_token = no_token || (f->kind == FACT_CLAIM && v->kind == CLASS_UNKNOWN);
        if (v->value == NULL || (!http && fact_is_request(f->kind))) {
            continue;
        }
        fill(f, v, ret);
        if (f->kind >= FACT_QUERY) {
            fill_named(f, v, room);
        }
    }
    if (http) {
        ret->query = unknown                    ? STR_NONE
                     : buf_len(&room->text) > 0 ? buf_str(&room->text)
                                                : STR_LIT("");
        ret->headers = &room->header_list;
        ret->claims = no_token ? NULL : &room->claim_list;
    }
}
