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
#include "policy_tracks.h"

/* The first line from `line` on in which a row that every atom asks for has something. */
static uint32_t next_line(struct search *s, unsigned row, uint32_t line)
{
    const struct track *t = search_row(s, row);
    if (t->mode == MODE_EVERY) {
        return line;
    }
    uint32_t next = UINT32_MAX;
    for (uint32_t i = t->first; i < t->first + t->n; i++) {
        struct op *op = &s->ask->ops[i];
        if (op->at < line) {
            policy_op_seek(s->ask->policy, op, line);
        }
        next = op->at < next ? op->at : next;
    }
    return next;
}

static inline bool line_is_empty(const struct line *l)
{
    uint64_t any = 0;
    for (unsigned w = 0; w < LINE_WORDS; w++) {
        any |= l->words[w];
    }
    return any == 0;
}

static bool meet_row(struct search *s, unsigned row, uint32_t line, struct line *acc)
{
    const struct policy *p = s->ask->policy;
    const struct track *t = search_row(s, row);
    if (t->mode == MODE_EVERY) {
        return true;
    }
    struct line l = {{0}};
    if (p->none[row] != NULL && (s->rows_full >> row & 1U) == 0) {
        l = p->none[row][line];
    }
    if (t->mode == MODE_SETS) {
        policy_track_unite(s, t, line, &l);
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
    const struct track *t = search_neg(s, dim);
    if (t->mode == MODE_NONE) {
        take_away(acc, &p->negs[dim][line]);
    } else if (t->mode == MODE_SETS && t->n > 0) {
        struct line l = {{0}};
        policy_track_unite(s, t, line, &l);
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
        unsigned dim = (unsigned)__builtin_ctz(left);
        const struct track *t = &s->neg_tracks[dim];
        bool usable = (s->negs_ready >> dim & 1U) != 0 && t->mode == MODE_SETS && !t->grouped;
        for (uint32_t i = t->first; usable && i < t->first + t->n; i++) {
            struct op *op = &s->ask->ops[i];
            if (op->at < line) {
                policy_op_seek(p, op, line);
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

/* What it goes by, in no part yet. */
static void search_begin(struct search *s, struct ask *a, bool grants)
{
    s->ask = a;
    s->grants = grants;
    s->inexact = false;
    s->rows_ready = s->negs_ready = 0;
    s->first_line = 0;
    s->end_of_all = a->policy->n_lines;
}

/* The next part. What is open stays so, unless there is too much of it. */
static void search_enter(struct search *s, const struct part *part)
{
    struct ask *a = s->ask;
    s->first_line = part->first_line;
    s->end_line = part->first_line + part->n_lines;
    s->rows = part->rows;
    s->rows_full = part->rows & part->rows_full;
    s->negs = part->negs;
    if (!a->query->http) { /* those that remain ask for nothing there */
        s->rows &= ROWS_PLAIN;
        s->rows_full &= s->rows;
        s->negs &= ROWS_PLAIN;
        if ((part->rows & part->rows_full & ~(uint32_t)ROWS_PLAIN) != 0) {
            s->end_line = s->first_line; /* all of it is about requests */
        }
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
    search_begin(&s, a, grants);
    search_enter(&s, policy_part(a->policy, SECTION_EACH));
    s.end_line = s.end_line == s.first_line ? e->first_line : e->first_line + e->n_lines;
    s.first_line = e->first_line;
    s.end_of_all = s.end_line;
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
static uint32_t search_part(struct search *s, const struct part *part, uint32_t before)
{
    const struct policy *p = s->ask->policy;
    uint32_t each_failed = UINT32_MAX;
    search_enter(s, part);
    /* Of a line that is the only one it shows when it is looked at. */
    uint32_t line = part->n_lines > 1 ? leap(s, s->first_line) : s->first_line;
    for (; line < s->end_line; line = line + 1 < s->end_line ? leap(s, line + 1) : s->end_line) {
        struct line acc __attribute__((uninitialized));
        if (before != UINT32_MAX &&
            p->atoms[part->first_atom + (line - part->first_line) * LINE_BITS].rule >= before) {
            break;
        }
        if (look_at(s, line, &acc)) {
            uint32_t atom = first_of(s, part, line, &acc, &each_failed);
            if (atom != UINT32_MAX) {
                return atom;
            }
        }
    }
    return UINT32_MAX;
}

/* --- sections ----------------------------------------------------------------------------------*/

/* Which parts may hold something, as bits: all facts that all of a part ask for have something in
 * it, and nothing excludes it whole. */
static uint32_t parts_alive(struct search *s, const struct section_index *index)
{
    uint32_t alive = UINT32_MAX;
    for (uint32_t left = index->rows; left != 0 && alive != 0; left &= left - 1) {
        unsigned row = (unsigned)__builtin_ctz(left);
        uint32_t asked = alive & index->full[row];
        if (asked != 0) {
            bool none = row >= DIM_PATH && !s->ask->query->http;
            alive &= ~asked | (none ? 0 : search_row(s, row)->parts);
        }
    }
    for (uint32_t left = index->excluded; left != 0 && alive != 0; left &= left - 1) {
        unsigned dim = (unsigned)__builtin_ctz(left);
        if ((alive & index->excluded_parts[dim]) != 0 && (dim < DIM_PATH || s->ask->query->http)) {
            alive &= ~search_neg(s, (enum dim)dim)->parts;
        }
    }
    return alive;
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
    struct search s __attribute__((uninitialized));
    if (p->index[section].parts == 0) {
        return UINT32_MAX;
    }
    const struct part *last = &p->parts[parts->at + parts->n - 1];
    a->n_ops = 0;
    search_begin(&s, a, section_grants(section));
    s.first_line = p->parts[parts->at].first_line;
    s.end_of_all = last->first_line + last->n_lines;
    uint32_t alive = parts->n > 1 ? parts_alive(&s, &p->index[section]) : UINT32_MAX;
    for (uint32_t i = parts->at; i < parts->at + parts->n && alive != 0; i++) {
        const struct part *part = &p->parts[i];
        if ((alive >> i % PART_BITS & 1U) == 0 || part->n_atoms == 0) {
            continue;
        }
        if (a->n_ops > OPS_MAX / 2) { /* as if it were the first */
            a->n_ops = 0;
            s.inexact = false;
            s.rows_ready = s.negs_ready = 0;
        }
        uint32_t atom = search_part(&s, part, rule);
        if (atom != UINT32_MAX && p->atoms[atom].rule < rule) {
            best = atom;
            rule = p->atoms[atom].rule;
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
    search_begin(&s, a, grants);
    search_enter(&s, part);
    s.end_line = s.end_of_all = s.first_line + part->n_lines;
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
