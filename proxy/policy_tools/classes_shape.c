/* classes_shape: items of a file as patterns that can be followed byte by byte. A pattern that is
 * finer than the item's meaning does no harm: it makes a class more. */
#include "classes_priv.h"

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdlib.h>
#include <string.h>

void shapes_deinit(struct shapes *s)
{
    automaton_deinit(&s->automaton);
    free(s->items);
    *s = (struct shapes){.items = NULL};
}

static void begin(struct shapes *s, const char *item, bool exact, size_t weight)
{
    MEM_GROW(s->items, s->n, s->cap, 64);
    s->items[s->n++] = (struct shape){item, exact, weight};
    automaton_begin(&s->automaton);
}

static void end(struct shapes *s)
{
    automaton_end(&s->automaton, (uint32_t)s->n - 1);
}

static char lower_of(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static void put(struct shapes *s, struct str text, bool lower)
{
    for (size_t i = 0; i < text.n; i++) {
        char c = lower ? lower_of(text.p[i]) : text.p[i];
        automaton_put_text(&s->automaton, (struct str){&c, 1});
    }
}

/* "*", exact, prefix or suffix; `rest` is what a star stands for. */
static void put_pattern(struct shapes *s, const char *item, enum element_kind rest, bool lower)
{
    size_t n = strlen(item);
    bool star = n == 1 && item[0] == '*';
    bool prefix = !star && n > 1 && item[n - 1] == '*';
    bool suffix = !star && !prefix && n > 1 && item[0] == '*';
    if (star || suffix) {
        automaton_put(&s->automaton, rest);
    }
    if (!star) {
        put(s, (struct str){item + suffix, n - prefix - suffix}, lower);
    }
    if (prefix) {
        automaton_put(&s->automaton, rest);
    }
}

static bool has_star(const char *item)
{
    size_t n = strlen(item);
    return n > 0 && (item[0] == '*' || item[n - 1] == '*');
}

void shape_text(struct shapes *s, const char *item, bool lower)
{
    size_t n = strlen(item);
    bool dot = lower && n > 1 && item[n - 1] == '.'; /* of a host: it does not count */
    mem_autofree char *text = mem_must_strndup(item, n - dot);
    begin(s, item, !has_star(item), n);
    put_pattern(s, text, ELEMENT_ANY, lower);
    end(s);
}

void shape_principal(struct shapes *s, const char *item)
{
    if (!conf_is_glob(item)) {
        shape_text(s, item, false);
        return;
    }
    size_t n = strlen(item);
    bool rest = n > 3 && strcmp(item + n - 3, "/**") == 0;
    begin(s, item, false, n);
    for (size_t i = 0; i < n - (rest ? 3 : 0); i++) {
        bool wild =
            item[i] == '*' && item[i - 1] == '/' && (item[i + 1] == '/' || item[i + 1] == 0);
        if (wild) {
            automaton_put(&s->automaton, ELEMENT_ONE);
            automaton_put(&s->automaton, ELEMENT_SEG);
        } else {
            automaton_put_text(&s->automaton, (struct str){item + i, 1});
        }
    }
    end(s);
    if (rest) {
        mem_autofree char *below = mem_must_strndup(item, n - 2);
        begin(s, item, false, n);
        for (const char *c = below; *c != '\0'; c++) {
            bool wild = *c == '*' && c[-1] == '/' && c[1] == '/';
            if (wild) {
                automaton_put(&s->automaton, ELEMENT_ONE);
                automaton_put(&s->automaton, ELEMENT_SEG);
            } else {
                automaton_put_text(&s->automaton, (struct str){c, 1});
            }
        }
        automaton_put(&s->automaton, ELEMENT_ANY);
        end(s);
    }
}

/* spiffe://TD/ns/NAMESPACE/sa/ACCOUNT, of which one is the item. */
void shape_namespace(struct shapes *s, const char *item, bool account)
{
    begin(s, item, false, strlen(item));
    automaton_put_text(&s->automaton, STR_LIT("spiffe://"));
    automaton_put(&s->automaton, ELEMENT_ONE);
    automaton_put(&s->automaton, ELEMENT_SEG);
    automaton_put_text(&s->automaton, STR_LIT("/ns/"));
    if (account) {
        automaton_put(&s->automaton, ELEMENT_ONE);
        automaton_put(&s->automaton, ELEMENT_SEG);
    } else {
        put_pattern(s, item, ELEMENT_SEG, false);
    }
    automaton_put_text(&s->automaton, STR_LIT("/sa/"));
    if (account) {
        put_pattern(s, item, ELEMENT_SEG, false);
    } else {
        automaton_put(&s->automaton, ELEMENT_ONE);
        automaton_put(&s->automaton, ELEMENT_SEG);
    }
    end(s);
}

void shape_domain(struct shapes *s, const char *item)
{
    begin(s, item, false, strlen(item));
    automaton_put_text(&s->automaton, STR_LIT("spiffe://"));
    automaton_put_text(&s->automaton, str_of(item));
    automaton_put_text(&s->automaton, STR_LIT("/"));
    automaton_put(&s->automaton, ELEMENT_ANY);
    end(s);
}

/* --- paths -------------------------------------------------------------------------------------
 */
static int hex_of(char c)
{
    return c >= '0' && c <= '9'                       ? c - '0'
           : lower_of(c) >= 'a' && lower_of(c) <= 'f' ? lower_of(c) - 'a' + 10
                                                      : -1;
}

/* %XX is that byte; owned. */
static char *decode(struct str item)
{
    char *text = mem_must_calloc(1, item.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < item.n; i++) {
        bool hex = item.p[i] == '%' && item.n - i > 2 && hex_of(item.p[i + 1]) >= 0 &&
                   hex_of(item.p[i + 2]) >= 0;
        text[n++] = hex ? (char)(hex_of(item.p[i + 1]) * 16 + hex_of(item.p[i + 2])) : item.p[i];
        i += hex ? 2 : 0;
    }
    return text;
}

/* A template; of {**} either no segment and not its slash, or whatever is there. */
static void put_template(struct shapes *s, const char *item, bool empty)
{
    begin(s, item, false, strlen(item));
    for (const char *at = item; *at == '/';) {
        const char *segment = at + 1;
        size_t n = strcspn(segment, "/");
        bool one = n == 2 && strncmp(segment, "{}", 2) == 0;
        bool rest = n == 4 && strncmp(segment, "{**}", 4) == 0;
        if (!rest || !empty) {
            automaton_put_text(&s->automaton, STR_LIT("/"));
        }
        if (one) {
            automaton_put(&s->automaton, ELEMENT_ONE);
            automaton_put(&s->automaton, ELEMENT_SEG);
        } else if (rest && !empty) {
            automaton_put(&s->automaton, ELEMENT_ANY);
        } else if (!rest) {
            mem_autofree char *text = decode((struct str){segment, n});
            automaton_put_text(&s->automaton, str_of(text));
        }
        at = segment + n;
    }
    end(s);
}

void shape_path(struct shapes *s, const char *item)
{
    if (conf_is_template(item)) {
        put_template(s, item, false);
        if (strstr(item, "{**}") != NULL) {
            put_template(s, item, true);
        }
        return;
    }
    size_t n = strlen(item);
    bool star = strcmp(item, "*") == 0;
    bool prefix = !star && n > 1 && item[n - 1] == '*';
    bool suffix = !star && !prefix && n > 1 && item[0] == '*';
    mem_autofree char *text = decode((struct str){item + suffix, n - prefix - suffix});
    begin(s, item, !star && !prefix && !suffix, n);
    if (star || suffix) {
        automaton_put(&s->automaton, ELEMENT_ANY);
    }
    if (!star) {
        automaton_put_text(&s->automaton, str_of(text));
    }
    if (prefix) {
        automaton_put(&s->automaton, ELEMENT_ANY);
    }
    end(s);
}

void shape_grpc(struct shapes *s, const char *item)
{
    size_t n = strlen(item);
    bool any = n > 2 && strcmp(item + n - 2, "/*") == 0;
    begin(s, item, !any, n);
    automaton_put_text(&s->automaton, STR_LIT("/"));
    automaton_put_text(&s->automaton, (struct str){item, n - any});
    if (any) {
        automaton_put(&s->automaton, ELEMENT_ONE);
        automaton_put(&s->automaton, ELEMENT_SEG);
    }
    end(s);
}

void shape_method_path(struct shapes *s)
{
    begin(s, NULL, false, 0);
    for (int i = 0; i < 2; i++) {
        automaton_put_text(&s->automaton, STR_LIT("/"));
        automaton_put(&s->automaton, ELEMENT_ONE);
        automaton_put(&s->automaton, ELEMENT_SEG);
    }
    end(s);
}

/* --- classes -----------------------------------------------------------------------------------
 */
struct running {
    const struct shapes *shapes;
    struct fact *fact;
};

static void on_text(void *arg, const char *text, const uint32_t *which, size_t n)
{
    const struct running *r = arg;
    const struct shape *narrowest = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct shape *shape = &r->shapes->items[which[i]];
        if (shape->item == NULL) {
            continue;
        }
        if (narrowest == NULL || (shape->exact && !narrowest->exact) ||
            (shape->exact == narrowest->exact && shape->weight > narrowest->weight)) {
            narrowest = shape;
        }
    }
    enum class_kind kind = narrowest == NULL  ? CLASS_OTHER
                           : narrowest->exact ? CLASS_EXACT
                                              : CLASS_PATTERN;
    fact_add(r->fact, kind, text, kind == CLASS_PATTERN ? narrowest->item : NULL);
}

bool shapes_run(const struct shapes *s, enum automaton_domain domain, const char *start,
                struct fact *f)
{
    struct running r = {s, f};
    return automaton_run(&s->automaton, domain, start, on_text, &r);
}
