/*
 * What a question knows of whole parts before it looks into any: of each key in which parts it has
 * something, of each section which facts all of a part's atoms ask for. So of a policy whose rules
 * are of many kinds a question looks only into the parts of those kinds that its facts can meet.
 */
#include "policy_priv.h"

#include <postern/mem.h>
#include <stdlib.h>

struct indexer {
    struct policy *p;
    uint32_t *part_of; /* of each line */
    uint32_t shared;   /* bits that more than one part has */
};

static uint32_t bit_of(uint32_t part)
{
    return 1U << part % PART_BITS;
}

static struct key *key_at(const struct policy *p, size_t at)
{
    return (struct key *)(void *)(p->table.bytes + at);
}

/* --- keys --------------------------------------------------------------------------------------*/

static uint32_t parts_of(const struct indexer *x, const struct set *set)
{
    uint32_t parts = 0;
    if (set->n == SET_ONE) {
        return bit_of(x->part_of[set->at / LINE_BITS]);
    }
    for (uint32_t i = set->at; i < set->at + set->n; i++) {
        parts |= bit_of(x->part_of[x->p->set_lines[i]]);
    }
    return parts;
}

/* Those of which it has all there is. */
static uint32_t whole_parts_of(const struct indexer *x, const struct set *set)
{
    const struct policy *p = x->p;
    uint32_t parts = 0;
    if (set->n == SET_ONE) {
        return 0; /* one atom is looked at as fast */
    }
    for (uint32_t i = set->at; i < set->at + set->n; i++) {
        uint32_t part = x->part_of[p->set_lines[i]];
        if (p->set_lines[i] == p->parts[part].first_line &&
            p->set_runs[i] >= p->parts[part].n_lines) {
            parts |= bit_of(part) & ~x->shared;
        }
    }
    return parts;
}

static void index_keys(const struct indexer *x)
{
    struct policy *p = x->p;
    for (size_t at = KEY_ALIGN; at < p->table.len;) {
        struct key *k = key_at(p, at);
        at += policy_key_size(k->len);
        k->parts[SET_POS] = parts_of(x, &k->sets[SET_POS]);
        k->parts[SET_POS_SECOND] = parts_of(x, &k->sets[SET_POS_SECOND]);
        k->parts[SET_NEG] = whole_parts_of(x, &k->sets[SET_NEG]);
        for (enum section s = 0; s < SECTION_COUNT; s++) {
            struct section_index *index = &p->index[s];
            uint32_t own = k->parts[SET_NEG] & index->parts;
            index->excluded |= own != 0 ? 1U << k->dim : 0;
            index->excluded_parts[k->dim] |= own;
        }
    }
}

/* --- sections ----------------------------------------------------------------------------------*/

static void index_section(struct policy *p, enum section section)
{
    const struct span *parts = &p->sections[section];
    struct section_index *index = &p->index[section];
    uint32_t not_full[ROW_COUNT] = {0};
    for (uint32_t i = parts->at; i < parts->at + parts->n; i++) {
        const struct part *part = &p->parts[i];
        if (part->n_atoms == 0) {
            continue;
        }
        index->parts |= bit_of(i);
        for (unsigned row = 0; row < ROW_COUNT; row++) {
            bool full = (part->rows & part->rows_full & 1U << row) != 0;
            not_full[row] |= full ? 0 : bit_of(i);
        }
    }
    for (unsigned row = 0; row < ROW_COUNT; row++) {
        index->full[row] = index->parts & ~not_full[row];
        index->rows |= index->full[row] != 0 ? 1U << row : 0;
    }
}

void policy_build_index(struct policy *p)
{
    struct indexer x = {.p = p};
    uint32_t taken = 0;
    x.part_of = mem_must_calloc(p->n_lines + 1, sizeof(x.part_of[0]));
    for (uint32_t i = 0; i < p->n_parts; i++) {
        x.shared |= taken & bit_of(i);
        taken |= bit_of(i);
        for (uint32_t line = 0; line < p->parts[i].n_lines; line++) {
            x.part_of[p->parts[i].first_line + line] = i;
        }
    }
    for (enum section s = 0; s < SECTION_COUNT; s++) {
        index_section(p, s);
    }
    index_keys(&x);
    free(x.part_of);
}
