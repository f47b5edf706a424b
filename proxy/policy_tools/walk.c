/* walk: through all questions, branch by branch; see space_priv.h. */
#include "space_priv.h"

#include <stdlib.h>
#include <string.h>

/* --- numbers -----------------------------------------------------------------------------------
 */
static uint64_t mix(uint64_t h, uint64_t v)
{
    h = ((h + 0x2545f4914f6cdd1dU) * 0xd6e8feb86659fd93U ^ v) * 0x9e3779b97f4a7c15U;
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9U;
    return h ^ h >> 32;
}

/* A set of numbers that are as good as random. */
struct numbers {
    uint64_t *slots; /* 0: free */
    size_t n, size;
};

static bool numbers_have(const struct numbers *s, uint64_t v)
{
    for (size_t i = v & (s->size - 1); s->size > 0 && s->slots[i] != 0;
         i = (i + 1) & (s->size - 1)) {
        if (s->slots[i] == v) {
            return true;
        }
    }
    return false;
}

static void numbers_add(struct numbers *s, uint64_t v)
{
    if (s->n * 2 >= s->size) {
        struct numbers more = {.size = s->size > 0 ? s->size * 2 : 1024};
        more.slots = mem_must_calloc(more.size, sizeof(*more.slots));
        for (size_t i = 0; i < s->size; i++) {
            if (s->slots[i] != 0) {
                numbers_add(&more, s->slots[i]);
            }
        }
        free(s->slots);
        *s = more;
    }
    size_t i = v & (s->size - 1);
    while (s->slots[i] != 0) {
        i = (i + 1) & (s->size - 1);
    }
    s->slots[i] = v;
    s->n++;
}

/* --- state -------------------------------------------------------------------------------------
 */
struct list {
    uint32_t *items;
    size_t n;
};

struct going {
    struct space_walk *walk;
    const struct space *space;
    bool http;
    bool unknown[FACT_CLAIM + 1]; /* facts of this kind are not known: parameters, claims */
    bool stopped;
    size_t facts[SPACE_FACTS_MAX]; /* in the order of the walk */
    size_t n_facts;
    const uint64_t *chosen[SPACE_FACTS_MAX];
    struct numbers same; /* what is left at a place, on both sides, where nothing differed */
    uint64_t ends;       /* differences so far */
};

static bool spend(struct going *g, uint64_t steps)
{
    if (g->walk->steps_left <= steps) {
        g->walk->steps_left = 0;
        return false;
    }
    g->walk->steps_left -= steps;
    return true;
}

/* --- what is left of a side --------------------------------------------------------------------
 */
static int compare_numbers(const void *pa, const void *pb)
{
    uint64_t a = *(const uint64_t *)pa;
    uint64_t b = *(const uint64_t *)pb;
    return a < b ? -1 : a > b;
}

/* What an atom asks of the facts that are left; *ret_any: nothing. */
static uint64_t rest_of(const struct going *g, const struct space_atom *a, size_t depth,
                        bool *ret_any)
{
    uint64_t h = mix(1, a->action == CONF_ALLOW ? 1 : 2);
    *ret_any = true;
    for (size_t i = depth; i < g->n_facts; i++) {
        uint32_t set = a->sets[g->facts[i]];
        *ret_any = *ret_any && set == SET_ALL;
        h = mix(h, set);
    }
    return h;
}

/* One number for what a side says of what is left: the same for the same atoms, in any order and
 * however often, and for what decides already. */
static uint64_t say_rest(const struct going *g, const struct list *live, size_t depth)
{
    enum { DENIES = 3, ALLOWS = 5 };
    uint64_t *parts = mem_must_calloc(live->n + 1, sizeof(*parts));
    size_t n = 0;
    bool allows_any = false;
    size_t n_allow = 0;
    size_t n_deny = 0;
    uint64_t said = 0;
    for (size_t i = 0; i < live->n && said == 0; i++) {
        const struct space_atom *a = &g->space->atoms[live->items[i]];
        bool any;
        uint64_t h = rest_of(g, a, depth, &any);
        bool allow = a->action == CONF_ALLOW;
        said = any && !allow ? DENIES : 0;
        allows_any = allows_any || (any && allow);
        n_allow += allow;
        n_deny += !allow;
        parts[n++] = h;
    }
    if (said == 0 && n_allow == 0) {
        said = DENIES;
    } else if (said == 0 && allows_any && n_deny == 0) {
        said = ALLOWS;
    } else if (said == 0 && allows_any) { /* other ALLOWs add nothing */
        n = 0;
        said = mix(7, 7);
        for (size_t i = 0; i < live->n; i++) {
            const struct space_atom *a = &g->space->atoms[live->items[i]];
            bool any;
            uint64_t h = rest_of(g, a, depth, &any);
            if (a->action != CONF_ALLOW) {
                parts[n++] = h;
            }
        }
        qsort(parts, n, sizeof(*parts), compare_numbers);
        for (size_t i = 0; i < n; i++) {
            said = i > 0 && parts[i] == parts[i - 1] ? said : mix(said, parts[i]);
        }
    } else if (said == 0) {
        said = mix(9, 9);
        qsort(parts, n, sizeof(*parts), compare_numbers);
        for (size_t i = 0; i < n; i++) {
            said = i > 0 && parts[i] == parts[i - 1] ? said : mix(said, parts[i]);
        }
    }
    free(parts);
    return said;
}

/* --- branching ---------------------------------------------------------------------------------
 */
/* For each class of a fact, which of the live atoms ask for it. */
struct split {
    size_t n_classes;
    uint64_t *marks; /* of each class: which atoms */
    uint32_t *from;  /* in items; n_classes and 1 */
    uint32_t *items; /* side and atom: atoms of side 0 are before those of side 1 */
    bool *wanted;    /* by the focus */
    struct list common[SPACE_SIDES_MAX]; /* that ask nothing of the fact */
};

static void split_deinit(struct split *s)
{
    free(s->marks);
    free(s->from);
    free(s->items);
    free(s->wanted);
    for (size_t side = 0; side < SPACE_SIDES_MAX; side++) {
        free(s->common[side].items);
    }
}

/* Of parameters either all are known or none is, and of claims. */
static bool takes_class(const struct going *g, const struct fact *f, size_t class)
{
    return (f->classes[class].kind == CLASS_UNKNOWN) == g->unknown[f->kind];
}

/* Calls back for each class of a set. */
#define EACH_CLASS(bits, n, c)                                                                     \
    for (size_t word_ = 0; word_ < ((n) + 63) / 64; word_++)                                       \
        for (uint64_t left_ = (bits)[word_]; left_ != 0; left_ &= left_ - 1)                       \
            for (size_t c = word_ * 64 + (size_t)__builtin_ctzll(left_), once_ = 1; once_ > 0;     \
                 once_ = 0)

static bool split_make(struct going *g, size_t fact, const struct list *live, struct split *s)
{
    const struct space *space = g->space;
    size_t n = space->classes->facts[fact].n;
    uint64_t steps = n;
    *s = (struct split){.n_classes = n};
    s->marks = mem_must_calloc(n, sizeof(*s->marks));
    s->from = mem_must_calloc(n + 2, sizeof(*s->from));
    s->wanted = mem_must_calloc(n, sizeof(*s->wanted));
    for (size_t side = 0; side < SPACE_SIDES_MAX; side++) {
        s->common[side].items = mem_must_calloc(live[side].n + 1, sizeof(uint32_t));
        for (size_t i = 0; i < live[side].n; i++) {
            uint32_t atom = live[side].items[i];
            uint32_t set = space->atoms[atom].sets[fact];
            if (set == SET_ALL) {
                s->common[side].items[s->common[side].n++] = atom;
                continue;
            }
            steps += (n + 63) / 64;
            uint64_t mark = mix(atom + 1, side + 1);
            EACH_CLASS(space->sets[set].bits, n, c)
            {
                s->marks[c] += mark;
                s->from[c + 2]++;
                steps++;
            }
        }
    }
    for (size_t c = 2; c < n + 2; c++) {
        s->from[c] += s->from[c - 1];
    }
    s->items = mem_must_calloc((size_t)s->from[n + 1] + 1, sizeof(*s->items));
    for (size_t side = 0; side < SPACE_SIDES_MAX; side++) {
        for (size_t i = 0; i < live[side].n; i++) {
            uint32_t atom = live[side].items[i];
            uint32_t set = space->atoms[atom].sets[fact];
            if (set != SET_ALL) {
                EACH_CLASS(space->sets[set].bits, n, c)
                {
                    s->items[s->from[c + 1]++] = atom;
                }
            }
        }
    }
    return spend(g, steps);
}

/* Atoms that hold for this class, ascending, side by side. */
static void split_take(const struct space *space, const struct split *s, size_t class,
                       struct list *ret)
{
    for (size_t side = 0; side < SPACE_SIDES_MAX; side++) {
        const struct list *common = &s->common[side];
        size_t at = s->from[class];
        size_t end = s->from[class + 1];
        ret[side].items = mem_must_calloc(common->n + (end - at) + 1, sizeof(uint32_t));
        ret[side].n = 0;
        size_t i = 0;
        while (i < common->n || at < end) {
            if (at < end && space->atoms[s->items[at]].side != side) {
                at++;
            } else if (at == end || (i < common->n && common->items[i] < s->items[at])) {
                ret[side].items[ret[side].n++] = common->items[i++];
            } else {
                ret[side].items[ret[side].n++] = s->items[at++];
            }
        }
    }
}

struct ordered {
    uint64_t mark;
    size_t class;
};

static int compare_ordered(const void *pa, const void *pb)
{
    const struct ordered *a = pa;
    const struct ordered *b = pb;
    if (a->mark != b->mark) {
        return a->mark < b->mark ? -1 : 1;
    }
    return a->class < b->class ? -1 : a->class > b->class;
}

static void go(struct going *g, size_t depth, const struct list *live);

static bool in_focus(const struct space_walk *w, const struct list *live)
{
    size_t k = 0;
    for (size_t i = 0; i < live->n && k < w->n_focus; i++) {
        while (k < w->n_focus && w->focus[k] < live->items[i]) {
            k++;
        }
        if (k < w->n_focus && w->focus[k] == live->items[i]) {
            return true;
        }
    }
    return false;
}

static void go_branches(struct going *g, size_t depth, const struct list *live)
{
    size_t fact = g->facts[depth];
    struct split s;
    bool able = split_make(g, fact, live, &s);
    struct ordered *order = mem_must_calloc(s.n_classes + 1, sizeof(*order));
    size_t n = 0;
    for (size_t c = 0; c < s.n_classes; c++) {
        if (takes_class(g, &g->space->classes->facts[fact], c)) {
            order[n++] = (struct ordered){s.marks[c], c};
        }
    }
    qsort(order, n, sizeof(*order), compare_ordered);
    for (size_t i = 0; able && i < n && !g->stopped && g->walk->steps_left > 0;) {
        size_t end = i;
        uint64_t *bits = mem_must_calloc((s.n_classes + 63) / 64, sizeof(*bits));
        while (end < n && order[end].mark == order[i].mark) {
            bits[order[end].class / 64] |= UINT64_C(1) << (order[end].class % 64);
            end++;
        }
        struct list next[SPACE_SIDES_MAX] = {{NULL, 0}};
        split_take(g->space, &s, order[i].class, next);
        able = spend(g, next[0].n + next[1].n + 1);
        if (able && (g->walk->focus == NULL || in_focus(g->walk, &next[0]))) {
            g->chosen[fact] = end - i < s.n_classes ? bits : NULL;
            go(g, depth + 1, next);
        }
        g->chosen[fact] = NULL;
        free(next[0].items);
        free(next[1].items);
        free(bits);
        i = end;
    }
    free(order);
    split_deinit(&s);
}

static void go_end(struct going *g, const struct list *live)
{
    struct space_end end = {
        .space = g->space,
        .http = g->http,
        .chosen = g->chosen,
    };
    for (size_t side = 0; side < SPACE_SIDES_MAX; side++) {
        end.live[side] = live[side].items;
        end.n_live[side] = live[side].n;
    }
    g->ends++;
    g->stopped = !g->walk->on_end(g->walk->arg, &end);
}

static bool asks(const struct space *s, const struct list *live, size_t fact)
{
    for (size_t i = 0; i < live->n; i++) {
        if (s->atoms[live->items[i]].sets[fact] != SET_ALL) {
            return true;
        }
    }
    return false;
}

/* As deep as there are facts. */
static void go(struct going *g, size_t depth, const struct list *live)
{
    uint64_t place = 0;
    if (g->walk->focus == NULL) {
        uint64_t a = say_rest(g, &live[0], depth);
        uint64_t b = say_rest(g, &live[1], depth);
        place = mix(mix(mix(11, depth), a), b) | 1;
        if (!spend(g, live[0].n + live[1].n + 1) || a == b || numbers_have(&g->same, place)) {
            return;
        }
    }
    while (depth < g->n_facts && !asks(g->space, &live[0], g->facts[depth]) &&
           !asks(g->space, &live[1], g->facts[depth])) {
        depth++;
    }
    uint64_t ends = g->ends;
    if (depth == g->n_facts) {
        go_end(g, live);
    } else {
        go_branches(g, depth, live);
    }
    if (place != 0 && g->ends == ends && !g->stopped && g->walk->steps_left > 0) {
        numbers_add(&g->same, place);
    }
}

static struct list take_part(const struct space *s, const uint32_t *atoms, size_t n, bool http)
{
    struct list l = {.items = mem_must_calloc(n + 1, sizeof(uint32_t))};
    for (size_t i = 0; i < n; i++) {
        const struct space_atom *a = &s->atoms[atoms[i]];
        if (!a->dead && (http || !a->request)) {
            l.items[l.n++] = atoms[i];
        }
    }
    return l;
}

static bool has_fact(const struct space *s, enum fact_kind kind)
{
    for (size_t i = 0; i < s->classes->n; i++) {
        if (s->classes->facts[i].kind == kind) {
            return true;
        }
    }
    return false;
}

static void walk_once(struct going *g)
{
    struct space_walk *w = g->walk;
    struct list live[SPACE_SIDES_MAX] = {{NULL, 0}};
    g->n_facts = 0;
    for (size_t i = 0; i < w->space->classes->n; i++) {
        if (g->http || !fact_is_request(w->space->classes->facts[i].kind)) {
            g->facts[g->n_facts++] = i;
        }
    }
    for (size_t side = 0; side < SPACE_SIDES_MAX; side++) {
        live[side] = take_part(w->space, w->atoms[side], w->n_atoms[side], g->http);
    }
    if (w->focus == NULL || in_focus(w, &live[0])) {
        go(g, 0, live);
    }
    free(live[0].items);
    free(live[1].items);
    free(g->same.slots);
    g->same = (struct numbers){.slots = NULL};
}

/* Connections; then requests, with and without what can be missing as a whole. */
bool space_walk(struct space_walk *w)
{
    static const struct {
        bool http, no_query, no_token;
    } passes[] = {{false, false, false},
                  {true, false, false},
                  {true, true, false},
                  {true, false, true},
                  {true, true, true}};
    struct going g = {.walk = w, .space = w->space};
    for (size_t i = 0; i < sizeof(passes) / sizeof(passes[0]); i++) {
        g.http = passes[i].http;
        g.unknown[FACT_QUERY] = passes[i].no_query;
        g.unknown[FACT_CLAIM] = passes[i].no_token;
        bool needed = (!passes[i].no_query || has_fact(w->space, FACT_QUERY)) &&
                      (!passes[i].no_token || has_fact(w->space, FACT_CLAIM));
        if (needed && !g.stopped && w->steps_left > 0) {
            walk_once(&g);
        }
    }
    return !g.stopped && w->steps_left > 0;
}

uint32_t space_decide(const struct space *s, const uint32_t *live, size_t n)
{
    uint32_t allow = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        if (s->atoms[live[i]].action == CONF_DENY) {
            return live[i];
        }
        if (allow == UINT32_MAX && s->atoms[live[i]].action == CONF_ALLOW) {
            allow = live[i];
        }
    }
    return allow;
}
