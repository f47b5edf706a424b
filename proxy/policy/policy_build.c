/*
 * Rules to atoms. A rule with several from and to entries is as many atoms; that multiplies, so it
 * has a bound: beyond it an atom stands for one from entry, and the to entries of the rule are
 * looked for on their own.
 */
#include "policy_priv.h"

#include <postern/mem.h>
#include <stdlib.h>

enum { ENTRIES_FREE = 4096 }; /* atoms that a rule may take in any case */

static struct atom *add_atom(struct policy *p, enum section section, struct atom atom)
{
    if (p->n_atoms == p->cap_atoms) {
        p->cap_atoms = p->cap_atoms > 0 ? p->cap_atoms * 2 : 16;
        p->atoms = mem_must_realloc(p->atoms, p->cap_atoms * sizeof(p->atoms[0]));
    }
    p->parts[section].n_atoms++;
    p->atoms[p->n_atoms] = atom;
    return &p->atoms[p->n_atoms++];
}

static bool is_multiplied(const struct rule *r)
{
    uint64_t bound = ENTRIES_FREE + 16 * ((uint64_t)r->n_from + r->n_to);
    return (uint64_t)r->n_from * r->n_to <= bound;
}

static void add_rule(struct policy *p, enum section section, uint32_t rule)
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
            add_atom(p, section, a);
            continue;
        }
        for (uint32_t j = 0; j < r->n_to; j++) {
            a.to = (int32_t)(r->to_at + j);
            add_atom(p, section, a);
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
        add_atom(p, SECTION_REQUESTS,
                 (struct atom){.rule = rule, .from = ENTRY_NONE, .to = ENTRY_NONE});
    }
    for (uint32_t j = r->to_at; j < r->to_at + r->n_to; j++) {
        if (claims || policy_to_is_request(&p->to[j])) {
            add_atom(p, SECTION_REQUESTS,
                     (struct atom){.rule = rule, .from = ENTRY_NONE, .to = (int32_t)j});
        }
    }
}

static void add_each(struct policy *p, uint32_t rule)
{
    const struct rule *r = &p->rules[rule];
    if (p->n_each == p->cap_each) {
        p->cap_each = p->cap_each > 0 ? p->cap_each * 2 : 4;
        p->each = mem_must_realloc(p->each, p->cap_each * sizeof(p->each[0]));
    }
    p->each[p->n_each++] = (struct each){.rule = rule, .first_atom = p->n_atoms};
    for (uint32_t j = 0; j < r->n_to; j++) {
        add_atom(p, SECTION_EACH,
                 (struct atom){.rule = rule, .from = ENTRY_EACH, .to = (int32_t)(r->to_at + j)});
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

static void add_section(struct policy *p, enum section section)
{
    p->parts[section].first_atom = p->n_atoms;
    for (uint32_t i = 0; i < p->n_rules; i++) {
        enum section own = section_of(&p->rules[i]);
        if (section == SECTION_EACH && own != SECTION_COUNT && !is_multiplied(&p->rules[i])) {
            add_each(p, i);
        } else if (section == SECTION_REQUESTS && (own == SECTION_DENY || own == SECTION_ALLOW)) {
            add_requests(p, i);
        } else if (section == own) {
            add_rule(p, section, i);
        }
    }
}

/* Each section begins a line, and each rule in SECTION_EACH. */
static void place(struct policy *p)
{
    for (enum section s = 0; s < SECTION_COUNT; s++) {
        struct part *part = &p->parts[s];
        part->first_line = p->n_lines;
        if (s != SECTION_EACH) {
            part->n_lines = (part->n_atoms + LINE_BITS - 1) / LINE_BITS;
            p->n_lines += part->n_lines;
        }
    }
    for (uint32_t i = 0; i < p->n_each; i++) {
        struct each *e = &p->each[i];
        e->first_line = p->n_lines;
        e->n_lines = (p->rules[e->rule].n_to + LINE_BITS - 1) / LINE_BITS;
        p->n_lines += e->n_lines;
        p->parts[SECTION_EACH].n_lines += e->n_lines;
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
}
