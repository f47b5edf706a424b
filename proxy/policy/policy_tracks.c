/*
 * From facts to sets of atoms, and these united in a line. A fact is turned into keys when the
 * first part asks for it, and its sets stay open until the section is done with.
 */
#include "policy_tracks.h"

/* --- sets on their way -------------------------------------------------------------------------*/

void policy_op_seek(const struct policy *p, struct op *op, uint32_t line)
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

static bool add_op(struct search *s, struct track *t, uint32_t key, unsigned kind, uint8_t group)
{
    struct ask *a = s->ask;
    const struct policy *p = a->policy;
    const struct key *k = policy_key(&p->table, key);
    const struct set *set = &k->sets[kind];
    struct op op = {.group = group};
    t->parts |= k->parts[kind];
    if (set->n == SET_ONE) {
        op.i = set->at;
        op.n = SET_ONE;
    } else {
        op.i = set->at;
        op.n = set->at + set->n;
        __builtin_prefetch(&p->set_lines[set->at]); /* none of it is near, and all is needed */
        __builtin_prefetch(&p->set_bits[set->at]);
    }
    policy_op_seek(p, &op, s->first_line);
    if (op.at >= s->end_of_all) {
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

void policy_track_open_row(struct search *s, unsigned row)
{
    struct track *t = &s->row_tracks[row];
    *t = (struct track){.first = s->ask->n_ops};
    s->rows_ready |= 1U << row;
    if (row < DIM_PLAIN_COUNT) {
        open_plain(s, t, (enum dim)row, false);
    } else {
        unsigned named = (row - DIM_PLAIN_COUNT) / NAMED_SLOTS;
        open_named(s, t, (enum dim)(DIM_PLAIN_COUNT + named),
                   SET_POS + (row - DIM_PLAIN_COUNT) % NAMED_SLOTS);
    }
    if (t->mode != MODE_SETS) {
        t->parts = t->mode == MODE_EVERY ? UINT32_MAX : 0;
    }
}

void policy_track_open_neg(struct search *s, enum dim dim)
{
    struct track *t = &s->neg_tracks[dim];
    *t = (struct track){.first = s->ask->n_ops};
    s->negs_ready |= 1U << dim;
    if (dim_is_named(dim)) {
        open_named(s, t, dim, SET_NEG);
    } else {
        open_plain(s, t, dim, true);
    }
    if (t->mode != MODE_SETS || t->grouped) {
        t->parts = 0; /* several values: it takes all of them to exclude */
    }
}

/* --- lines -------------------------------------------------------------------------------------*/

static void unite_plain(struct search *s, const struct track *t, uint32_t line, struct line *l)
{
    for (uint32_t i = t->first; i < t->first + t->n; i++) {
        struct op *op = &s->ask->ops[i];
        if (op->at < line) {
            policy_op_seek(s->ask->policy, op, line);
        }
        if (op->at == line) {
            op_unite(s->ask->policy, op, l);
        }
    }
}

void policy_track_unite(struct search *s, const struct track *t, uint32_t line, struct line *l)
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
            policy_op_seek(p, op, line);
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
