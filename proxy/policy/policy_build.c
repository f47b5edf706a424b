/*
 * Rules to atoms. A rule with several from and to entries is as many atoms; that multiplies, so it
 * has a bound: beyond it an atom stands for one from entry, and the to entries of the rule are
 * looked for on their own.
 */
#include "policy_priv.h"

#include <postern/mem.h>
#include <postern/mem_grow.h>
#include <stdlib.h>

enum { ENTRIES_FREE = 4096 }; /* atoms that a rule may take in any case */

static void add_atom(struct policy *p, struct atom atom)
{
    MEM_GROW(p->atoms, p->n_atoms, p->cap_atoms, 16);
    p->atoms[p->n_atoms++] = atom;
}

static bool is_multiplied(const struct rule *r)
{
    uint64_t bound = ENTRIES_FREE + 16 * ((uint64_t)r->n_from + r->n_to);
    return (uint64_t)r->n_from * r->n_to <= bound;
}

static void add_rule(struct policy *p, uint32_t rule)
{
    const struct rule *r = &p->rules[rule];
    uint8_t flags = r->expires_s != 0 ? ATOM_EXPIRES : 0;
    bool each = !is_multiplied(r);
    for (uint32_t i = 0; i < (r->n_from > 0 ? r->n_from : 1); i++) {
        struct atom a = {.rule = rule, .to = ENTRY_NONE, .flags = flags};
        a.from = r->n_from > 0 ? (int32_t)(r->from_at + i) : ENTRY_NONE;
        if (each || r->n_to == 0) {
            a.to = each ? ENTRY_EACH : ENTRY_NONE;
            a.flags |= each ? ATOM_EACH : 0;
            add_atom(p, a);
            continue;
        }
        for (uint32_t j = 0; j < r->n_to; j++) {
            a.to = (int32_t)(r->to_at + j);
            add_atom(p, a);
        }
    }
}

/* Its entries with request clauses, for policy_wants_requests; claims make one of every entry. */
static void add_requests(struct policy *p, uint32_t rule)
{
    const struct rule *r = &p->rules[rule];
    bool claims = false;
    for (uint32_t i = r->from_at; i < r->from_at + r->n_from; i++) {
        claims = claims || p->from[i].claims.pos.n + p->from[i].claims.neg.n > 0;
    }
    if (claims && r->n_to == 0) {
        add_atom(p, (struct atom){.rule = rule, .from = ENTRY_NONE, .to = ENTRY_NONE});
    }
    for (uint32_t j = r->to_at; j < r->to_at + r->n_to; j++) {
        if (claims || policy_to_is_request(&p->to[j])) {
            add_atom(p, (struct atom){.rule = rule, .from = ENTRY_NONE, .to = (int32_t)j});
        }
    }
}

static void add_each(struct policy *p, uint32_t rule)
{
    const struct rule *r = &p->rules[rule];
    MEM_GROW(p->each, p->n_each, p->cap_each, 4);
    p->each[p->n_each++] = (struct each){.rule = rule, .first_atom = p->n_atoms};
    for (uint32_t j = 0; j < r->n_to; j++) {
        add_atom(p, (struct atom){.rule = rule, .from = ENTRY_EACH, .to = (int32_t)(r->to_at + j)});
    }
}

/* Where a rule's atoms are; SECTION_COUNT: nowhere. Dry-run and AUDIT rules must not turn ports
 * into such as are judged by request. */
static enum section section_of(const struct rule *r)
{
    bool dry = r->mode == CONF_DRY_RUN;
    switch ((enum conf_action)r->action) {
    case CONF_DENY:
        return dry ? SECTION_DRY_DENY : SECTION_DENY;
    case CONF_ALLOW:
        return dry ? SECTION_DRY_ALLOW : SECTION_ALLOW;
    case CONF_AUDIT:
        break;
    }
    return dry ? SECTION_COUNT : SECTION_AUDIT;
}

/* --- parts -------------------------------------------------------------------------------------*/

/* What an atom asks about, as bits. */
static uint32_t facts_of(const struct policy *p, const struct atom *a)
{
    uint32_t facts = 0;
    for (enum dim d = 0; d < DIM_PLAIN_COUNT; d++) {
        const struct clause *c = policy_atom_clause(p, a, d);
        facts |= (c->pos.n > 0 ? 1U << d : 0) | (c->neg.n > 0 ? 0x10000U << d : 0);
    }
    for (enum dim d = DIM_PLAIN_COUNT; d < DIM_COUNT; d++) {
        const struct named *c = policy_atom_named(p, a, d);
        facts |= (c->pos.n > 0 ? 1U << d : 0) | (c->neg.n > 0 ? 0x10000U << d : 0);
    }
    return facts;
}

static int compare_facts(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void add_part(struct policy *p, enum section section, uint32_t first_atom, uint32_t n_atoms)
{
    p->parts = mem_must_realloc(p->parts, (p->n_parts + 1) * sizeof(p->parts[0]));
    p->parts[p->n_parts++] = (struct part){.first_atom = first_atom, .n_atoms = n_atoms};
    p->sections[section].n++;
}

/* Those that ask about the same facts together, if they are so many that they fill a line; the
 * others behind them. The order of the file is kept in each. */
static void add_parts(struct policy *p, enum section section, uint32_t first)
{
    uint32_t n = p->n_atoms - first;
    p->sections[section] = (struct span){.at = p->n_parts};
    if (n < 2 * LINE_BITS || section == SECTION_REQUESTS || section == SECTION_EACH) {
        add_part(p, section, first, n);
        return;
    }
    mem_autofree uint32_t *facts = mem_must_calloc(n, sizeof(facts[0]));
    mem_autofree uint32_t *sorted = mem_must_calloc(n, sizeof(sorted[0]));
    mem_autofree struct atom *atoms = mem_must_calloc(n, sizeof(atoms[0]));
    for (uint32_t i = 0; i < n; i++) {
        atoms[i] = p->atoms[first + i];
        sorted[i] = facts[i] = facts_of(p, &atoms[i]);
    }
    qsort(sorted, n, sizeof(sorted[0]), compare_facts);
    uint32_t at = first;
    for (uint32_t from = 0, to = 0; from < n; from = to) {
        while (to < n && sorted[to] == sorted[from]) {
            to++;
        }
        if (to - from < LINE_BITS) {
            continue;
        }
        add_part(p, section, at, to - from);
        for (uint32_t i = 0; i < n; i++) {
            if (atoms[i].rule != UINT32_MAX && facts[i] == sorted[from]) {
                p->atoms[at++] = atoms[i];
                atoms[i].rule = UINT32_MAX; /* it has its place */
            }
        }
    }
    if (at < first + n) {
        add_part(p, section, at, first + n - at);
        for (uint32_t i = 0; i < n; i++) {
            if (atoms[i].rule != UINT32_MAX) {
                p->atoms[at++] = atoms[i];
            }
        }
    }
}

static void add_section(struct policy *p, enum section section)
{
    uint32_t first = p->n_atoms;
    for (uint32_t i = 0; i < p->n_rules; i++) {
        enum section own = section_of(&p->rules[i]);
        if (section == SECTION_EACH && own != SECTION_COUNT && !is_multiplied(&p->rules[i])) {
            add_each(p, i);
        } else if (section == SECTION_REQUESTS && (own == SECTION_DENY || own == SECTION_ALLOW)) {
            add_requests(p, i);
        } else if (section == own) {
            add_rule(p, i);
        }
    }
    add_parts(p, section, first);
}

/* Each part begins a line, and each rule in SECTION_EACH. */
static void place(struct policy *p)
{
    struct part *each = policy_part(p, SECTION_EACH);
    for (uint32_t i = 0; i < p->n_parts; i++) {
        struct part *part = &p->parts[i];
        part->first_line = p->n_lines;
        if (part != each) {
            part->n_lines = (part->n_atoms + LINE_BITS - 1) / LINE_BITS;
            p->n_lines += part->n_lines;
        }
    }
    for (uint32_t i = 0; i < p->n_each; i++) {
        struct each *e = &p->each[i];
        e->first_line = p->n_lines;
        e->n_lines = (p->rules[e->rule].n_to + LINE_BITS - 1) / LINE_BITS;
        p->n_lines += e->n_lines;
        each->n_lines += e->n_lines;
    }
    POSTERN_ASSERT(p->n_lines < UINT32_MAX / LINE_BITS / 2);
}

void policy_build(struct policy *p)
{
    for (enum section s = 0; s < SECTION_COUNT; s++) {
        add_section(p, s);
    }
    place(p);
    policy_build_sets(p);
    policy_build_index(p);
}
