/*
 * Which atoms hold, a line of 512 at a time.
 *
 * Row by row, the sets of the keys that the fact matches are united, with the atoms that ask for
 * nothing there, and the rows intersected; what excludes one of the keys is taken away. A line in
 * which a row has nothing is not visited: rows that every atom asks for come first, and the next
 * line is the first that they all have something in. Facts are turned into keys when their row is
 * reached.
 *
 * Bound: each line is visited once at most, for each key that matches. So a question costs at most
 * (atoms / 512) x (keys that match), whatever the rules are and whoever asks.
 */
#include "policy_priv.h"

#include <string.h>

enum mode {
    MODE_SETS,  /* as the keys say */
    MODE_NONE,  /* only atoms that ask for nothing (exclude nothing) there */
    MODE_EVERY, /* nothing is said by it */
};

struct track {
    uint8_t mode;
    bool ready, grouped;
    uint32_t first, n; /* in ask.ops */
};

struct search {
    struct ask *ask;
    bool grants;
    uint32_t first_line, end_line;
    uint32_t rows, rows_full, negs;
    struct track row_tracks[ROW_COUNT], neg_tracks[DIM_COUNT];
    bool inexact; /* some set was left out: what is found has to be looked at */
};

/* --- sets on their way -------------------------------------------------------------------------*/

static void op_seek(const struct policy *p, struct op *op, uint32_t line)
{
    if (op->n == SET_ONE) {
        op->at = op->i / LINE_BITS >= line ? op->i / LINE_BITS : UINT32_MAX;
        return;
    }
    if (op->n - op->i > 16) {
        uint32_t low = op->i, high = op->n;
        while (low < high) {
            uint32_t mid = low + (high - low) / 2;
            if (p->set_lines[mid] < line) {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        op->i = low;
    }
    while (op->i < op->n && p->set_lines[op->i] < line) {
        op->i++;
    }
    op->at = op->i < op->n ? p->set_lines[op->i] : UINT32_MAX;
}

/* At op->at. */
static inline void op_unite(const struct policy *p, const struct op *op, struct line *l)
{
    if (op->n == SET_ONE) {
        l->words[op->i % LINE_BITS / 64] |= 1UL << op->i % 64;
        return;
    }
    const struct line *bits = &p->set_bits[op->i];
    for (unsigned w = 0; w < LINE_WORDS; w++) {
        l->words[w] |= bits->words[w];
    }
}

static inline bool line_is_empty(const struct line *l)
{
    uint64_t any = 0;
    for (unsigned w = 0; w < LINE_WORDS; w++) {
        any |= l->words[w];
    }
    return any == 0;
}

static bool add_op(struct search *s, struct track *t, uint32_t key, unsigned kind, uint8_t group)
{
    struct ask *a = s->ask;
    const struct policy *p = a->policy;
    const struct set *set = &p->sets[policy_key(&p->table, key)->no * SETS_A_KEY + kind];
    struct op op = {.group = group};
    if (set->n == SET_ONE) {
        op.i = set->at;
        op.n = SET_ONE;
    } else {
        op.i = set->at;
        op.n = set->at + set->n;
    }
    op_seek(p, &op, s->first_line);
    if (op.at >= s->end_line) {
        if (group == 0) {
            return true;
        }
        op.at = UINT32_MAX;
    }
    if (a->n_ops == OPS_MAX) {
        t->mode = MODE_EVERY;
        s->inexact = true;
        return false;
    }
    a->ops[a->n_ops++] = op;
    t->n++;
    return true;
}

/* --- from facts to sets ------------------------------------------------------------------------*/

static void open_plain(struct search *s, struct track *t, enum dim dim, bool negative)
{
    struct ask *a = s->ask;
    const struct match *m = policy_ask_match(a, dim);
    if (m->known == NOT_KNOWN && !s->grants) {
        t->mode = MODE_EVERY;
        return;
    }
    bool unclear = dim == DIM_GRPC && !a->query->grpc && (negative || s->grants);
    if (m->known != KNOWN || unclear) {
        t->mode = negative && !s->grants ? MODE_EVERY : MODE_NONE;
        return;
    }
    for (uint32_t i = 0; i < m->n; i++) {
        if (!add_op(s, t, m->keys[i], negative ? SET_NEG : SET_POS, 0)) {
            return;
        }
    }
}

/* What a caller says several times: with ALLOW all of it has to match, with DENY all of it has to
 * be excluded. So the sets of one value are united and those of one name's values intersected. */
static void open_named(struct search *s, struct track *t, enum dim dim, unsigned kind)
{
    bool negative = kind == SET_NEG;
    const struct named_match *m = policy_ask_named(s->ask, dim);
    if (m->known == NOT_KNOWN && !s->grants) {
        t->mode = MODE_EVERY;
        return;
    }
    if (m->known != KNOWN) {
        t->mode = negative && !s->grants ? MODE_EVERY : MODE_NONE;
        return;
    }
    bool all = dim != DIM_CLAIM && s->grants != negative;
    t->grouped = all;
    for (uint32_t i = 0; i < m->n_values; i++) {
        const struct named_value *v = &m->values[i];
        bool last = i + 1 == m->n_values || m->values[i + 1].name != v->name;
        bool alone = last && (i == 0 || m->values[i - 1].name != v->name);
        for (uint32_t k = 0; k < v->n; k++) {
            unsigned group = all && !alone ? OP_GROUPED : 0;
            if (group != 0 && k + 1 == v->n) {
                group |= OP_VALUE_ENDS | (last ? OP_NAME_ENDS : 0);
            }
            if (!add_op(s, t, m->keys[v->at + k], kind, (uint8_t)group)) {
                return;
            }
        }
    }
}

static void open_row(struct search *s, unsigned row)
{
    struct track *t = &s->row_tracks[row];
    *t = (struct track){.ready = true, .first = s->ask->n_ops};
    if (row < DIM_PLAIN_COUNT) {
        open_plain(s, t, (enum dim)row, false);
    } else {
        unsigned named = (row - DIM_PLAIN_COUNT) / NAMED_SLOTS;
        open_named(s, t, (enum dim)(DIM_PLAIN_COUNT + named),
                   SET_POS + (row - DIM_PLAIN_COUNT) % NAMED_SLOTS);
    }
}

static void open_neg(struct search *s, enum dim dim)
{
    struct track *t = &s->neg_tracks[dim];
    *t = (struct track){.ready = true, .first = s->ask->n_ops};
    if (dim_is_named(dim)) {
        open_named(s, t, dim, SET_NEG);
    } else {
        open_plain(s, t, dim, true);
    }
}

/* --- lines -------------------------------------------------------------------------------------*/

static void unite_plain(struct search *s, const struct track *t, uint32_t line, struct line *l)
{
    for (uint32_t i = t->first; i < t->first + t->n; i++) {
        struct op *op = &s->ask->ops[i];
        if (op->at < line) {
            op_seek(s->ask->policy, op, line);
        }
        if (op->at == line) {
            op_unite(s->ask->policy, op, l);
        }
    }
}

/* The united sets of a track in this line. */
static void unite(struct search *s, const struct track *t, uint32_t line, struct line *l)
{
    const struct policy *p = s->ask->policy;
    if (!t->grouped) {
        unite_plain(s, t, line, l);
        return;
    }
    struct line value = {{0}}, name = {{0}};
    bool first_value = true;
    for (uint32_t i = t->first; i < t->first + t->n; i++) {
        struct op *op = &s->ask->ops[i];
        if (op->at < line) {
            op_seek(p, op, line);
        }
        if (op->group == 0) {
            if (op->at == line) {
                op_unite(p, op, l);
            }
            continue;
        }
        if (op->at == line) {
            op_unite(p, op, &value);
        }
        if ((op->group & OP_VALUE_ENDS) != 0) {
            for (unsigned w = 0; w < LINE_WORDS; w++) {
                name.words[w] = first_value ? value.words[w] : name.words[w] & value.words[w];
                value.words[w] = 0;
            }
            first_value = false;
        }
        if ((op->group & OP_NAME_ENDS) != 0) {
            for (unsigned w = 0; w < LINE_WORDS; w++) {
                l->words[w] |= name.words[w];
            }
            first_value = true;
        }
    }
}

/* The first line from `line` on in which a row that every atom asks for has something. */
static uint32_t next_line(struct search *s, unsigned row, uint32_t line)
{
    struct track *t = &s->row_tracks[row];
    if (!t->ready) {
        open_row(s, row);
    }
    if (t->mode == MODE_EVERY) {
        return line;
    }
    uint32_t next = UINT32_MAX;
    for (uint32_t i = t->first; i < t->first + t->n; i++) {
        struct op *op = &s->ask->ops[i];
        if (op->at < line) {
            op_seek(s->ask->policy, op, line);
        }
        next = op->at < next ? op->at : next;
    }
    return next;
}

static bool meet_row(struct search *s, unsigned row, uint32_t line, struct line *acc)
{
    const struct policy *p = s->ask->policy;
    struct track *t = &s->row_tracks[row];
    if (!t->ready) {
        open_row(s, row);
    }
    if (t->mode == MODE_EVERY) {
        return true;
    }
    struct line l = {{0}};
    if (p->none[row] != NULL && (s->rows_full >> row & 1U) == 0) {
        l = p->none[row][line];
    }
    if (t->mode == MODE_SETS) {
        unite(s, t, line, &l);
    }
    for (unsigned w = 0; w < LINE_WORDS; w++) {
        acc->words[w] &= l.words[w];
    }
    return !line_is_empty(acc);
}

static void take_away(struct line *acc, const struct line *l)
{
    for (unsigned w = 0; w < LINE_WORDS; w++) {
        acc->words[w] &= ~l->words[w];
    }
}

static bool leave_out(struct search *s, enum dim dim, uint32_t line, struct line *acc)
{
    const struct policy *p = s->ask->policy;
    struct track *t = &s->neg_tracks[dim];
    if (!t->ready) {
        open_neg(s, dim);
    }
    if (t->mode == MODE_NONE) {
        take_away(acc, &p->negs[dim][line]);
    } else if (t->mode == MODE_SETS && t->n > 0) {
        struct line l = {{0}};
        unite(s, t, line, &l);
        take_away(acc, &l);
    }
    return !line_is_empty(acc);
}

/* Which atoms of this line hold. False: none. */
static bool look_at(struct search *s, uint32_t line, struct line *acc)
{
    const struct policy *p = s->ask->policy;
    *acc = p->valid[line];
    for (uint32_t left = s->rows_full; left != 0; left &= left - 1) {
        if (!meet_row(s, (unsigned)__builtin_ctz(left), line, acc)) {
            return false;
        }
    }
    if (p->requests != NULL && !s->ask->query->http) {
        take_away(acc, &p->requests[line]);
    }
    for (uint32_t left = s->rows & ~s->rows_full; left != 0; left &= left - 1) {
        if (!meet_row(s, (unsigned)__builtin_ctz(left), line, acc)) {
            return false;
        }
    }
    for (uint32_t left = s->negs; left != 0; left &= left - 1) {
        if (!leave_out(s, (enum dim)__builtin_ctz(left), line, acc)) {
            return false;
        }
    }
    return !line_is_empty(acc);
}

/* The first line from `line` on that something does not exclude as a whole. */
static uint32_t leap_excluded(struct search *s, uint32_t line)
{
    const struct policy *p = s->ask->policy;
    for (uint32_t left = s->negs; left != 0; left &= left - 1) {
        const struct track *t = &s->neg_tracks[__builtin_ctz(left)];
        bool usable = t->ready && t->mode == MODE_SETS && !t->grouped;
        for (uint32_t i = t->first; usable && i < t->first + t->n; i++) {
            struct op *op = &s->ask->ops[i];
            if (op->at < line) {
                op_seek(p, op, line);
            }
            if (op->at == line && op->n != SET_ONE) {
                line += p->set_runs[op->i];
            }
        }
    }
    return line;
}

/* The first line from `line` on in which every atom's rows may have something. */
static uint32_t leap(struct search *s, uint32_t line)
{
    line = leap_excluded(s, line);
    for (uint32_t left = s->rows_full; left != 0 && line < s->end_line;) {
        unsigned row = (unsigned)__builtin_ctz(left);
        uint32_t next = next_line(s, row, line);
        left &= left - 1;
        if (next != line) {
            line = next;
            left = s->rows_full;
        }
    }
    return line;
}

/* --- what is found -----------------------------------------------------------------------------*/

static void search_begin(struct search *s, struct ask *a, const struct part *part, bool grants)
{
    s->ask = a;
    s->grants = grants;
    s->first_line = part->first_line;
    s->end_line = part->first_line + part->n_lines;
    s->rows = part->rows;
    s->rows_full = part->rows & part->rows_full;
    s->negs = part->negs;
    s->inexact = false;
    if (!a->query->http) { /* those that remain ask for nothing there */
        s->rows &= (1U << DIM_PATH) - 1;
        s->rows_full &= s->rows;
        s->negs &= (1U << DIM_PATH) - 1;
        if ((part->rows & part->rows_full & ~((1U << DIM_PATH) - 1)) != 0) {
            s->end_line = s->first_line; /* all of it is about requests */
        }
    }
    for (unsigned i = 0; i < ROW_COUNT; i++) {
        s->row_tracks[i].ready = false;
    }
    for (unsigned i = 0; i < DIM_COUNT; i++) {
        s->neg_tracks[i].ready = false;
    }
}

static const struct each *each_of(const struct policy *p, uint32_t rule)
{
    uint32_t low = 0, high = p->n_each;
    while (low + 1 < high) {
        uint32_t mid = low + (high - low) / 2;
        if (p->each[mid].rule <= rule) {
            low = mid;
        } else {
            high = mid;
        }
    }
    POSTERN_ASSERT(low < p->n_each && p->each[low].rule == rule);
    return &p->each[low];
}

static bool each_line_holds(struct search *s, const struct each *e, uint32_t line,
                            const struct line *acc)
{
    const struct atom *atoms =
        &s->ask->policy->atoms[e->first_atom + (line - e->first_line) * LINE_BITS];
    for (uint32_t w = 0; w < LINE_WORDS; w++) {
        for (uint64_t bits = acc->words[w]; bits != 0; bits &= bits - 1) {
            const struct atom *atom = &atoms[w * 64 + (uint32_t)__builtin_ctzl(bits)];
            if (((atom->flags & ATOM_NAMED) == 0 && !s->inexact) ||
                policy_atom_holds(s->ask, atom)) {
                return true;
            }
        }
    }
    return false;
}

/* Whether one of the rule's to entries holds. */
static bool each_holds(struct ask *a, uint32_t rule, bool grants)
{
    const struct each *e = each_of(a->policy, rule);
    struct search s __attribute__((uninitialized));
    uint32_t n_ops = a->n_ops;
    bool found = false;
    search_begin(&s, a, policy_part(a->policy, SECTION_EACH), grants);
    s.end_line = s.end_line == s.first_line ? e->first_line : e->first_line + e->n_lines;
    s.first_line = e->first_line;
    for (uint32_t line = leap(&s, s.first_line); !found && line < s.end_line;
         line = leap(&s, line + 1)) {
        struct line acc __attribute__((uninitialized));
        found = look_at(&s, line, &acc) && each_line_holds(&s, e, line, &acc);
    }
    a->n_ops = n_ops;
    return found;
}

/* What the sets do not say. */
static bool atom_holds(struct search *s, const struct atom *atom, uint32_t *each_failed)
{
    struct ask *a = s->ask;
    if ((atom->flags & ATOM_EXPIRES) != 0 &&
        policy_has_ended(&a->policy->rules[atom->rule], a->query)) {
        return false;
    }
    if (((atom->flags & ATOM_NAMED) != 0 || s->inexact) && !policy_atom_holds(a, atom)) {
        return false;
    }
    if ((atom->flags & ATOM_EACH) != 0) {
        if (*each_failed == atom->rule) {
            return false;
        }
        if (!each_holds(a, atom->rule, s->grants)) {
            *each_failed = atom->rule;
            return false;
        }
    }
    return true;
}

static uint32_t first_of(struct search *s, const struct part *part, uint32_t line,
                         const struct line *acc, uint32_t *each_failed)
{
    for (uint32_t w = 0; w < LINE_WORDS; w++) {
        for (uint64_t bits = acc->words[w]; bits != 0; bits &= bits - 1) {
            uint32_t atom = part->first_atom + (line - part->first_line) * LINE_BITS + w * 64 +
                            (uint32_t)__builtin_ctzl(bits);
            if (atom_holds(s, &s->ask->policy->atoms[atom], each_failed)) {
                return atom;
            }
        }
    }
    return UINT32_MAX;
}

/* The first atom of the part that holds, of a rule before `before`. */
static uint32_t search_part(struct ask *a, const struct part *part, bool grants, uint32_t before)
{
    const struct policy *p = a->policy;
    struct search s __attribute__((uninitialized));
    uint32_t each_failed = UINT32_MAX;
    a->n_ops = 0;
    search_begin(&s, a, part, grants);
    for (uint32_t line = leap(&s, s.first_line); line < s.end_line; line = leap(&s, line + 1)) {
        struct line acc __attribute__((uninitialized));
        if (p->atoms[part->first_atom + (line - part->first_line) * LINE_BITS].rule >= before) {
            break;
        }
        if (look_at(&s, line, &acc)) {
            uint32_t atom = first_of(&s, part, line, &acc, &each_failed);
            if (atom != UINT32_MAX) {
                return atom;
            }
        }
    }
    return UINT32_MAX;
}

static bool section_grants(enum section section)
{
    return section == SECTION_ALLOW || section == SECTION_DRY_ALLOW;
}

uint32_t policy_search(struct ask *a, enum section section)
{
    const struct policy *p = a->policy;
    const struct span *parts = &p->sections[section];
    uint32_t best = UINT32_MAX, rule = UINT32_MAX;
    for (uint32_t i = 0; i < parts->n; i++) {
        const struct part *part = &p->parts[parts->at + i];
        if (part->n_atoms > 0) {
            uint32_t atom = search_part(a, part, section_grants(section), rule);
            if (atom != UINT32_MAX && p->atoms[atom].rule < rule) {
                best = atom;
                rule = p->atoms[atom].rule;
            }
        }
    }
    return best;
}

/* False: fn has had enough. */
static bool search_target(struct ask *a, const struct part *part, bool grants,
                          bool (*fn)(void *arg, const struct atom *atom), void *arg)
{
    struct search s __attribute__((uninitialized));
    a->n_ops = 0;
    search_begin(&s, a, part, grants);
    s.end_line = s.first_line + part->n_lines;
    s.rows = part->rows & 1U << DIM_TARGET;
    s.rows_full &= s.rows;
    for (uint32_t line = leap(&s, s.first_line); line < s.end_line; line = leap(&s, line + 1)) {
        struct line acc = a->policy->valid[line];
        if (s.rows != 0 && !meet_row(&s, DIM_TARGET, line, &acc)) {
            continue;
        }
        for (uint32_t w = 0; w < LINE_WORDS; w++) {
            for (uint64_t bits = acc.words[w]; bits != 0; bits &= bits - 1) {
                uint32_t at =
                    (line - part->first_line) * LINE_BITS + w * 64 + (uint32_t)__builtin_ctzl(bits);
                if (!fn(arg, &a->policy->atoms[part->first_atom + at])) {
                    return false;
                }
            }
        }
    }
    return true;
}

void policy_search_target(struct ask *a, enum section section,
                          bool (*fn)(void *arg, const struct atom *atom), void *arg)
{
    const struct span *parts = &a->policy->sections[section];
    for (uint32_t i = 0; i < parts->n; i++) {
        if (!search_target(a, &a->policy->parts[parts->at + i], section_grants(section), fn, arg)) {
            return;
        }
    }
}
