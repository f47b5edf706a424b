/*
 * Atoms to sets of bits: of each key, which atoms ask for it and which exclude it; of each row,
 * which atoms ask for nothing there.
 *
 * An atom can have several clauses about headers, parameters or claims, which all have to hold. The
 * two that fewest others share are in the sets; an atom with more is looked at once more when the
 * sets say that it may hold.
 */
#include "policy_priv.h"

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdlib.h>
#include <string.h>

struct pair {
    uint32_t set, position;
};

struct builder {
    struct policy *p;
    struct pair *pairs;
    size_t n, cap;
    uint32_t *uses; /* of keys with names, by atoms; NULL: there are none */
};

/* Empty. Each in a line of the cache of its own. */
static struct line *lines_new(size_t n)
{
    struct line *lines = aligned_alloc(sizeof(*lines), (n + 1) * sizeof(*lines));
    POSTERN_ASSERT(lines != NULL);
    memset(lines, 0, (n + 1) * sizeof(*lines));
    return lines;
}

static void set_bit(struct line *lines, uint32_t position)
{
    lines[position / LINE_BITS].words[position % LINE_BITS / 64] |= 1UL << position % 64;
}

static void add_pair(struct builder *b, uint32_t key, unsigned kind, uint32_t position)
{
    MEM_GROW(b->pairs, b->n, b->cap, 256);
    uint32_t no = policy_key(&b->p->table, key)->no;
    b->pairs[b->n++] = (struct pair){no * SETS_A_KEY + kind, position};
}

static void add_run(struct builder *b, const struct run *run, unsigned kind, uint32_t position)
{
    for (uint32_t i = 0; i < run->n; i++) {
        add_pair(b, policy_run_keys(b->p, run)[i], kind, position);
    }
}

static void mark(struct builder *b, struct line **lines, uint32_t position)
{
    if (*lines == NULL) {
        *lines = lines_new(b->p->n_lines);
    }
    set_bit(*lines, position);
}

/* --- clauses with names ------------------------------------------------------------------------*/

/* Something that one of these keys has to be there for. */
struct conjunct {
    struct run keys;
    uint64_t uses;
};

/* What asks for the name alone: `present`, and in ALLOW a `not` with values, which speaks of a
 * value that is there. */
static struct run keys_of_item(const struct named_item *item, bool negative)
{
    return item->present || negative ? (struct run){.at = item->name, .n = 1} : item->values;
}

typedef void conjunct_fn(struct builder *b, void *arg, struct run keys);

static void each_conjunct(struct builder *b, const struct atom *a, enum dim dim, conjunct_fn *fn,
                          void *arg)
{
    const struct policy *p = b->p;
    const struct named *c = policy_atom_named(p, a, dim);
    bool grants = action_grants((enum conf_action)p->rules[a->rule].action);
    for (uint32_t i = 0; i < c->pos.n; i++) {
        fn(b, arg, keys_of_item(&p->items[c->pos.at + i], false));
    }
    for (uint32_t i = 0; grants && i < c->neg.n; i++) {
        const struct named_item *item = &p->items[c->neg.at + i];
        if (!item->present) {
            fn(b, arg, keys_of_item(item, true));
        }
    }
}

static void count_uses(struct builder *b, void *arg, struct run keys)
{
    (void)arg;
    for (uint32_t i = 0; i < keys.n; i++) {
        b->uses[policy_key(&b->p->table, policy_run_keys(b->p, &keys)[i])->no]++;
    }
}

struct rarest {
    struct conjunct best[NAMED_SLOTS]; /* the fewest uses first */
    unsigned n;
};

static void take_rarest(struct builder *b, void *arg, struct run keys)
{
    struct rarest *r = arg;
    struct conjunct c = {.keys = keys};
    for (uint32_t i = 0; i < keys.n; i++) {
        c.uses += b->uses[policy_key(&b->p->table, policy_run_keys(b->p, &keys)[i])->no];
    }
    r->n++;
    for (unsigned i = 0; i < NAMED_SLOTS; i++) {
        if (r->best[i].keys.n == 0 || c.uses < r->best[i].uses) {
            struct conjunct other = r->best[i];
            r->best[i] = c;
            c = other;
        }
        if (c.keys.n == 0) {
            break;
        }
    }
}

/* Of several `not` about one name the sets hold one: what a caller says twice could otherwise be
 * taken to match both by halves. */
static bool is_repeated(const struct policy *p, const struct named *c, uint32_t i)
{
    for (uint32_t k = 0; k < i; k++) {
        if (p->items[c->neg.at + k].name == p->items[c->neg.at + i].name) {
            return true;
        }
    }
    return false;
}

/* The bits of rows in which the atom asks for something. */
static uint32_t add_named(struct builder *b, struct atom *a, enum dim dim, uint32_t position)
{
    struct policy *p = b->p;
    const struct named *c = policy_atom_named(p, a, dim);
    struct rarest r = {.n = 0};
    uint32_t rows = 0;
    each_conjunct(b, a, dim, take_rarest, &r);
    for (unsigned i = 0; i < NAMED_SLOTS && r.best[i].keys.n > 0; i++) {
        add_run(b, &r.best[i].keys, SET_POS + i, position);
        rows |= 1U << (DIM_PLAIN_COUNT + (dim - DIM_PLAIN_COUNT) * NAMED_SLOTS + i);
    }
    if (r.n > NAMED_SLOTS) {
        a->flags |= ATOM_NAMED;
    }
    for (uint32_t i = 0; i < c->neg.n; i++) {
        const struct named_item *item = &p->items[c->neg.at + i];
        mark(b, &p->negs[dim], position);
        if (is_repeated(p, c, i)) {
            a->flags |= ATOM_NAMED;
        } else if (item->present) {
            add_pair(b, item->name, SET_NEG, position);
        } else {
            add_run(b, &item->values, SET_NEG, position);
        }
    }
    return rows;
}

/* --- atoms -------------------------------------------------------------------------------------*/

static bool is_request(const struct policy *p, const struct atom *a)
{
    const struct named *claims = policy_atom_named(p, a, DIM_CLAIM);
    return claims->pos.n + claims->neg.n > 0 || (a->to >= 0 && policy_to_is_request(&p->to[a->to]));
}

static void add_atom(struct builder *b, struct part *part, struct atom *a, uint32_t position,
                     bool requests)
{
    struct policy *p = b->p;
    uint32_t rows = 0;
    for (enum dim d = 0; d < DIM_PLAIN_COUNT; d++) {
        const struct clause *c = policy_atom_clause(p, a, d);
        if (requests && d != DIM_TARGET && d != DIM_PORT) {
            continue;
        }
        add_run(b, &c->pos, SET_POS, position);
        add_run(b, &c->neg, SET_NEG, position);
        rows |= c->pos.n > 0 ? 1U << d : 0;
        if (c->neg.n > 0) {
            part->negs |= 1U << d;
            mark(b, &p->negs[d], position);
        }
    }
    for (enum dim d = DIM_PLAIN_COUNT; !requests && b->uses != NULL && d < DIM_COUNT; d++) {
        rows |= add_named(b, a, d, position);
        part->negs |= policy_atom_named(p, a, d)->neg.n > 0 ? 1U << d : 0;
    }
    if (!requests && is_request(p, a)) {
        mark(b, &p->requests, position);
    }
    set_bit(p->valid, position);
    for (unsigned row = 0; row < ROW_COUNT; row++) {
        if ((rows >> row & 1U) == 0) {
            mark(b, &p->none[row], position);
        }
    }
    part->rows |= rows;
    part->rows_full &= rows;
}

static void add_atoms(struct builder *b)
{
    struct policy *p = b->p;
    struct part *last = policy_part(p, SECTION_EACH);
    for (uint32_t k = 0; k < p->n_parts; k++) {
        struct part *part = &p->parts[k];
        part->rows_full = (1U << ROW_COUNT) - 1;
        for (uint32_t i = 0; part != last && i < part->n_atoms; i++) {
            add_atom(b, part, &p->atoms[part->first_atom + i], part->first_line * LINE_BITS + i,
                     part == policy_part(p, SECTION_REQUESTS));
        }
    }
    for (uint32_t e = 0; e < p->n_each; e++) {
        const struct each *each = &p->each[e];
        for (uint32_t i = 0; i < p->rules[each->rule].n_to; i++) {
            add_atom(b, last, &p->atoms[each->first_atom + i], each->first_line * LINE_BITS + i,
                     false);
        }
    }
    uint32_t rows = 0;
    for (uint32_t k = 0; k < p->n_parts; k++) {
        rows |= p->parts[k].rows;
    }
    for (unsigned row = 0; row < ROW_COUNT; row++) {
        if ((rows >> row & 1U) == 0) {
            free(p->none[row]);
            p->none[row] = NULL;
        }
    }
}

/* --- sets --------------------------------------------------------------------------------------*/

/* By set; within one, positions stay ascending. */
static void sort_pairs(struct builder *b, uint32_t *ends, uint32_t n_sets)
{
    struct pair *sorted = mem_must_calloc(b->n > 0 ? b->n : 1, sizeof(sorted[0]));
    for (size_t i = 0; i < b->n; i++) {
        ends[b->pairs[i].set]++;
    }
    uint32_t sum = 0;
    for (uint32_t s = 0; s < n_sets; s++) {
        uint32_t n = ends[s];
        ends[s] = sum;
        sum += n;
    }
    for (size_t i = 0; i < b->n; i++) {
        sorted[ends[b->pairs[i].set]++] = b->pairs[i];
    }
    free(b->pairs);
    b->pairs = sorted;
}

static uint32_t count_lines(const struct pair *pairs, uint32_t from, uint32_t to)
{
    uint32_t n = 0;
    for (uint32_t i = from; i < to; i++) {
        n += i == from || pairs[i].position / LINE_BITS != pairs[i - 1].position / LINE_BITS;
    }
    return n;
}

/* A set of one line could as well be a list; of one atom it is. */
static bool is_one(const struct pair *pairs, uint32_t from, uint32_t to)
{
    return from < to && pairs[from].position == pairs[to - 1].position;
}

static void fill_set(struct policy *p, struct set *set, const struct pair *pairs, uint32_t from,
                     uint32_t to, uint32_t *n_lines)
{
    if (is_one(pairs, from, to)) {
        *set = (struct set){.at = pairs[from].position, .n = SET_ONE};
        return;
    }
    *set = (struct set){.at = *n_lines};
    for (uint32_t i = from; i < to; i++) {
        uint32_t line = pairs[i].position / LINE_BITS;
        if (set->n == 0 || p->set_lines[*n_lines - 1] != line) {
            p->set_lines[(*n_lines)++] = line;
            set->n++;
        }
        uint32_t bit = pairs[i].position % LINE_BITS;
        p->set_bits[*n_lines - 1].words[bit / 64] |= 1UL << bit % 64;
    }
}

static bool is_whole(const struct policy *p, uint32_t i)
{
    return memcmp(&p->set_bits[i], &p->valid[p->set_lines[i]], sizeof(struct line)) == 0;
}

/* From behind, within each set: what excludes whole lines is leapt over at once. */
static void count_runs(struct policy *p, uint32_t n_lines)
{
    p->set_runs = mem_must_calloc(n_lines + 1, sizeof(p->set_runs[0]));
    for (uint32_t i = n_lines; i-- > 0;) {
        if (is_whole(p, i)) {
            bool next = i + 1 < n_lines && p->set_lines[i + 1] == p->set_lines[i] + 1;
            p->set_runs[i] = 1 + (next ? p->set_runs[i + 1] : 0);
        }
    }
}

static void fill_sets(struct builder *b)
{
    struct policy *p = b->p;
    uint32_t n_sets = p->table.n * SETS_A_KEY;
    mem_autofree uint32_t *ends = mem_must_calloc(n_sets + 1, sizeof(ends[0]));
    POSTERN_ASSERT(b->n < UINT32_MAX && p->table.n < UINT32_MAX / SETS_A_KEY);
    sort_pairs(b, ends, n_sets);
    uint32_t total = 0;
    for (uint32_t s = 0; s < n_sets; s++) {
        uint32_t from = s > 0 ? ends[s - 1] : 0;
        total += is_one(b->pairs, from, ends[s]) ? 0 : count_lines(b->pairs, from, ends[s]);
    }
    p->set_lines = mem_must_calloc(total + 1, sizeof(p->set_lines[0]));
    p->set_bits = lines_new(total);
    uint32_t n_lines = 0;
    uint32_t s = 0;
    for (size_t at = KEY_ALIGN; at < p->table.len;) { /* in the order of their numbers */
        struct key *k = (struct key *)(void *)(p->table.bytes + at);
        at += policy_key_size(k->len);
        for (unsigned kind = 0; kind < SETS_A_KEY; kind++, s++) {
            fill_set(p, &k->sets[kind], b->pairs, s > 0 ? ends[s - 1] : 0, ends[s], &n_lines);
        }
    }
    POSTERN_ASSERT(s == n_sets);
    count_runs(p, n_lines);
}

void policy_build_sets(struct policy *p)
{
    struct builder b = {.p = p};
    p->valid = lines_new(p->n_lines);
    if (policy_asks_named(p)) {
        b.uses = mem_must_calloc(p->table.n, sizeof(b.uses[0]));
        for (uint32_t i = 0; i < p->n_atoms; i++) {
            for (enum dim d = DIM_PLAIN_COUNT; d < DIM_COUNT; d++) {
                each_conjunct(&b, &p->atoms[i], d, count_uses, NULL);
            }
        }
    }
    add_atoms(&b);
    fill_sets(&b);
    free(b.pairs);
    free(b.uses);
}
