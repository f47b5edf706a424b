#include "automaton.h"

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdlib.h>
#include <string.h>

#include "tally.h"

enum { STATES_MAX = 200000, PLACES_MAX = 30 * 1000 * 1000, TEXT_MAX = 8000 };

/* --- patterns ----------------------------------------------------------------------------------
 */
void automaton_deinit(struct automaton *a)
{
    free(a->items);
    free(a->starts);
    *a = (struct automaton){.items = NULL};
}

static void add(struct automaton *a, struct element e)
{
    MEM_GROW(a->items, a->n, a->cap, 256);
    a->items[a->n++] = e;
}

void automaton_begin(struct automaton *a)
{
    MEM_GROW(a->starts, a->n_starts, a->cap_starts, 64);
    a->starts[a->n_starts++] = (uint32_t)a->n;
}

void automaton_put(struct automaton *a, enum element_kind kind)
{
    add(a, (struct element){.kind = (uint8_t)kind});
}

void automaton_put_text(struct automaton *a, struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        add(a, (struct element){.kind = ELEMENT_CHAR, .c = (uint8_t)text.p[i]});
    }
}

void automaton_end(struct automaton *a, uint32_t which)
{
    add(a, (struct element){.kind = ELEMENT_END, .which = which});
}

/* --- domains -----------------------------------------------------------------------------------
 */
enum place { PLACE_EMPTY, PLACE_DOMAIN, PLACE_SEGMENT_EMPTY, PLACE_INSIDE, PLACE_NONE };

static bool is_spiffe_byte(uint8_t c, bool domain)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_' ||
           (!domain && c >= 'A' && c <= 'Z');
}

static enum place next_place(enum automaton_domain domain, enum place at, uint8_t c)
{
    if (domain != AUTOMATON_SPIFFE) {
        return PLACE_INSIDE;
    }
    if (at == PLACE_EMPTY || at == PLACE_DOMAIN) {
        return c == '/' ? (at == PLACE_DOMAIN ? PLACE_SEGMENT_EMPTY : PLACE_NONE)
                        : (is_spiffe_byte(c, true) ? PLACE_DOMAIN : PLACE_NONE);
    }
    return c == '/' ? (at == PLACE_INSIDE ? PLACE_SEGMENT_EMPTY : PLACE_NONE)
                    : (is_spiffe_byte(c, false) ? PLACE_INSIDE : PLACE_NONE);
}

static bool may_end(enum automaton_domain domain, enum place at)
{
    return at == PLACE_INSIDE || (domain == AUTOMATON_PATH && at == PLACE_EMPTY);
}

/* --- states ------------------------------------------------------------------------------------
 */
struct state {
    uint32_t *at; /* owned: elements that can be next, ascending */
    uint32_t n;
    uint32_t from; /* the state before; UINT32_MAX: none */
    uint8_t c;     /* by this byte */
    uint8_t place;
};

struct run {
    const struct automaton *patterns;
    enum automaton_domain domain;
    const char *start;
    automaton_fn on_text;
    void *arg;
    struct tally known; /* place and elements of a state; its number is the same */
    struct tally found; /* patterns that hold a text */
    struct state *states;
    size_t n, cap, places;
    uint8_t *marked; /* per element */
    uint32_t *list;  /* elements that were marked, in any order */
    size_t n_list;
    bool full;
};

/* An element, and those behind it that may be skipped. */
static void mark(struct run *r, uint32_t at)
{
    for (;; at++) {
        if (r->marked[at] == 0) {
            r->marked[at] = 1;
            r->list[r->n_list++] = at;
        }
        uint8_t kind = r->patterns->items[at].kind;
        if (kind != ELEMENT_ANY && kind != ELEMENT_SEG) {
            return;
        }
    }
}

static void step(struct run *r, uint32_t at, uint8_t c)
{
    const struct element *e = &r->patterns->items[at];
    switch ((enum element_kind)e->kind) {
    case ELEMENT_CHAR:
        if (e->c == c) {
            mark(r, at + 1);
        }
        break;
    case ELEMENT_ONE:
        if (c != '/') {
            mark(r, at + 1);
        }
        break;
    case ELEMENT_SEG:
        if (c != '/') {
            mark(r, at);
        }
        break;
    case ELEMENT_ANY:
        mark(r, at);
        break;
    case ELEMENT_END:
        break;
    }
}

static int compare_numbers(const void *pa, const void *pb)
{
    uint32_t a = *(const uint32_t *)pa;
    uint32_t b = *(const uint32_t *)pb;
    return a < b ? -1 : a > b;
}

/* What was marked, as a state, if there is none like it. */
static void keep(struct run *r, enum place place, uint32_t from, uint8_t c)
{
    for (size_t i = 0; i < r->n_list; i++) {
        r->marked[r->list[i]] = 0;
    }
    r->places += r->n_list;
    if (r->n == STATES_MAX || r->places > PLACES_MAX) {
        r->full = true;
        r->n_list = 0;
        return;
    }
    /* The place goes in front of the elements, which are sorted behind it. */
    uint32_t *key = mem_must_calloc(r->n_list + 1, sizeof(*key));
    key[0] = place;
    memcpy(key + 1, r->list, r->n_list * sizeof(*key));
    qsort(key + 1, r->n_list, sizeof(*key), compare_numbers);
    size_t before = r->known.n;
    (void)tally_take(&r->known, (struct str){(const char *)key, (r->n_list + 1) * sizeof(*key)});
    if (r->known.n > before) {
        MEM_GROW(r->states, r->n, r->cap, 256);
        uint32_t *at = mem_must_calloc(r->n_list + 1, sizeof(*at));
        memcpy(at, key + 1, r->n_list * sizeof(*at));
        r->states[r->n++] = (struct state){
            .at = at, .n = (uint32_t)r->n_list, .from = from, .c = c, .place = (uint8_t)place};
    }
    free(key);
    r->n_list = 0;
}

/* The text that leads to a state, if a pattern can hold it that is new in this company. */
static void look_at(struct run *r, uint32_t number)
{
    const struct state *s = &r->states[number];
    uint32_t *which = mem_must_calloc((size_t)s->n + 1, sizeof(*which));
    size_t n = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const struct element *e = &r->patterns->items[s->at[i]];
        if (e->kind == ELEMENT_END) {
            which[n++] = e->which;
        }
    }
    qsort(which, n, sizeof(*which), compare_numbers);
    size_t before = r->found.n;
    (void)tally_take(&r->found, (struct str){(const char *)which, n * sizeof(*which)});
    if (r->found.n > before) {
        char text[TEXT_MAX];
        size_t len = strlen(r->start);
        size_t behind = 0;
        for (uint32_t i = number; r->states[i].from != UINT32_MAX; i = r->states[i].from) {
            behind++;
        }
        if (len + behind < sizeof(text)) {
            memcpy(text, r->start, len);
            text[len + behind] = '\0';
            for (uint32_t i = number; r->states[i].from != UINT32_MAX; i = r->states[i].from) {
                text[len + --behind] = (char)r->states[i].c;
            }
            r->on_text(r->arg, text, which, n);
        }
    }
    free(which);
}

/* Every byte that makes a difference here: those that patterns wait for, a slash, and one that
 * nobody waits for. */
static void go_on(struct run *r, uint32_t number)
{
    static const char others[] =
        "xzqjkvwygbpmfhduclnrtsoiea0123456789-_XZQJKVWYGBPMFHDUCLNRTSOIEA.";
    bool wanted[256] = {false};
    for (uint32_t i = 0; i < r->states[number].n; i++) {
        const struct element *e = &r->patterns->items[r->states[number].at[i]];
        if (e->kind == ELEMENT_CHAR) {
            wanted[e->c] = true;
        }
    }
    bool slash = r->domain != AUTOMATON_TEXT || wanted['/'];
    wanted['/'] = slash;
    for (const char *c = others; *c != '\0'; c++) {
        enum place there = next_place(r->domain, (enum place)r->states[number].place, (uint8_t)*c);
        if (!wanted[(uint8_t)*c] && there != PLACE_NONE) {
            wanted[(uint8_t)*c] = true;
            break;
        }
    }
    for (unsigned c = 1; c < 256 && !r->full; c++) {
        enum place there = next_place(r->domain, (enum place)r->states[number].place, (uint8_t)c);
        if (!wanted[c] || there == PLACE_NONE) {
            continue;
        }
        for (uint32_t i = 0; i < r->states[number].n; i++) {
            step(r, r->states[number].at[i], (uint8_t)c);
        }
        keep(r, there, number, (uint8_t)c);
    }
}

static void begin(struct run *r)
{
    for (size_t i = 0; i < r->patterns->n_starts; i++) {
        mark(r, r->patterns->starts[i]);
    }
    /* Through the fixed beginning, which makes no state. */
    for (const char *c = r->start; *c != '\0'; c++) {
        size_t n = r->n_list;
        uint32_t *now = mem_must_calloc(n + 1, sizeof(*now));
        memcpy(now, r->list, n * sizeof(*now));
        for (size_t i = 0; i < n; i++) {
            r->marked[now[i]] = 0;
        }
        r->n_list = 0;
        for (size_t i = 0; i < n; i++) {
            step(r, now[i], (uint8_t)*c);
        }
        free(now);
    }
    keep(r, PLACE_EMPTY, UINT32_MAX, 0);
}

bool automaton_run(const struct automaton *a, enum automaton_domain domain, const char *start,
                   automaton_fn on_text, void *arg)
{
    struct run r = {
        .patterns = a, .domain = domain, .start = start, .on_text = on_text, .arg = arg};
    r.marked = mem_must_calloc(a->n + 1, 1);
    r.list = mem_must_calloc(a->n + 1, sizeof(*r.list));
    begin(&r);
    for (size_t i = 0; i < r.n && !r.full; i++) {
        if (may_end(domain, (enum place)r.states[i].place)) {
            look_at(&r, (uint32_t)i);
        }
        go_on(&r, (uint32_t)i);
    }
    for (size_t i = 0; i < r.n; i++) {
        free(r.states[i].at);
    }
    free(r.states);
    free(r.marked);
    free(r.list);
    tally_deinit(&r.known);
    tally_deinit(&r.found);
    return !r.full;
}
