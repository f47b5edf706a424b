/* diff: what two policies answer differently, told as groups of questions. A rule that ends makes
 * another policy of its file, so both are compared at every moment at which one ends. */
#include "space_priv.h"

#include <jansson.h>
#include <postern/os.h>
#include <stdlib.h>
#include <string.h>

#include "classes_text.h"

enum { STEPS_MAX = 400 * 1000 * 1000, MOMENTS_MAX = 50 };

struct diff {
    const struct policy_diff_options *options;
    struct buf *out;
    json_t *list; /* NULL: text */
    size_t n;     /* differences */
    int64_t moment_s;
    bool said_moment, full;
};

/* --- telling -----------------------------------------------------------------------------------
 */
static const char *rule_name(const struct space_end *e, uint32_t atom)
{
    const struct space_atom *a = &e->space->atoms[atom];
    return e->space->confs[a->side]->rules[a->rule].name;
}

static bool allows(const struct space_end *e, uint32_t atom)
{
    return atom != UINT32_MAX && e->space->atoms[atom].action == CONF_ALLOW;
}

static void put_by(struct buf *out, const struct space_end *e, uint32_t atom)
{
    if (atom == UINT32_MAX) {
        buf_printf(out, "no rule");
    } else {
        buf_printf(out, "rule \"%s\"", rule_name(e, atom));
    }
}

static void tell_text(struct diff *d, const struct space_end *e, const uint32_t *by)
{
    char when[32];
    if (d->moment_s != d->options->now_s && !d->said_moment) {
        os_time_text(d->moment_s, when, sizeof(when));
        d->full = !buf_printf(d->out, "from %s on:\n", when);
        d->said_moment = true;
    }
    buf_printf(d->out, "%s ", allows(e, by[1]) ? "gains" : "loses");
    classes_put_question(e->space, e->chosen, e->http, d->out);
    buf_printf(d->out, "\n    before: %s by ", allows(e, by[0]) ? "allowed" : "denied");
    put_by(d->out, e, by[0]);
    buf_printf(d->out, "; now: %s by ", allows(e, by[1]) ? "allowed" : "denied");
    put_by(d->out, e, by[1]);
    d->full = !buf_printf(d->out, "\n");
}

static void tell_json(struct diff *d, const struct space_end *e, const uint32_t *by)
{
    char when[32];
    os_time_text(d->moment_s, when, sizeof(when));
    json_t *question = classes_json(e->space, e->chosen, e->http);
    json_t *one = json_pack(
        "{s:s, s:s*, s:b, s:o, s:s*, s:s*}", "change", allows(e, by[1]) ? "gains" : "loses", "from",
        d->moment_s != d->options->now_s ? when : NULL, "request", e->http, "what", question,
        "rule_before", by[0] != UINT32_MAX ? rule_name(e, by[0]) : NULL, "rule_now",
        by[1] != UINT32_MAX ? rule_name(e, by[1]) : NULL);
    json_array_append_new(d->list, one);
}

static bool on_end(void *arg, const struct space_end *e)
{
    struct diff *d = arg;
    const uint32_t by[2] = {space_decide(e->space, e->live[0], e->n_live[0]),
                            space_decide(e->space, e->live[1], e->n_live[1])};
    if (allows(e, by[0]) == allows(e, by[1])) {
        return true;
    }
    if (d->n++ < d->options->max) {
        if (d->list != NULL) {
            tell_json(d, e, by);
        } else {
            tell_text(d, e, by);
        }
    }
    return !d->full;
}

/* --- moments -----------------------------------------------------------------------------------
 */
static int compare_times(const void *pa, const void *pb)
{
    int64_t a = *(const int64_t *)pa;
    int64_t b = *(const int64_t *)pb;
    return a < b ? -1 : a > b;
}

/* Now, and whenever a rule of either ends later; ascending. */
static int find_moments(const struct conf_policy *const *confs, int64_t now_s, int64_t *moments,
                        size_t *ret_n, struct err *err)
{
    size_t n = 0;
    moments[n++] = now_s;
    for (size_t side = 0; side < 2; side++) {
        for (size_t i = 0; i < confs[side]->n_rules; i++) {
            int64_t at = confs[side]->rules[i].expires_s;
            bool known = at <= now_s;
            for (size_t k = 0; k < n && !known; k++) {
                known = moments[k] == at;
            }
            if (!known && n == MOMENTS_MAX) {
                return err_set(err, ERR_LIMIT, "rules end at more than %d different times",
                               MOMENTS_MAX - 1);
            }
            if (!known) {
                moments[n++] = at;
            }
        }
    }
    qsort(moments, n, sizeof(*moments), compare_times);
    *ret_n = n;
    return 0;
}

static bool is_in_force(const struct conf_rule *r, int64_t at_s)
{
    return (r->expires_s == 0 || at_s < r->expires_s) && r->mode == CONF_ENFORCE &&
           r->action != CONF_AUDIT;
}

static int compare_at(struct diff *d, const struct space *s, int64_t at_s, struct err *err)
{
    struct space_walk w = {.space = s, .steps_left = STEPS_MAX, .on_end = on_end, .arg = d};
    uint32_t *atoms[2];
    for (size_t side = 0; side < 2; side++) {
        atoms[side] = mem_must_calloc(s->n_atoms + 1, sizeof(uint32_t));
        for (size_t i = 0; i < s->n_atoms; i++) {
            const struct space_atom *a = &s->atoms[i];
            if (a->side == side && is_in_force(&s->confs[side]->rules[a->rule], at_s)) {
                atoms[side][w.n_atoms[side]++] = (uint32_t)i;
            }
        }
        w.atoms[side] = atoms[side];
    }
    d->moment_s = at_s;
    d->said_moment = false;
    bool whole = space_walk(&w);
    free(atoms[0]);
    free(atoms[1]);
    if (d->full) {
        return err_set(err, ERR_LIMIT, "the differences are too many to print");
    }
    if (!whole) {
        err_set(err, ERR_LIMIT, "the policies are too large to compare");
        return err_advise(err, "compare parts of them: rules of one target at a time");
    }
    return 0;
}

/* --- diff --------------------------------------------------------------------------------------
 */
static int write_json(const char *text, size_t n, void *out)
{
    return buf_append(out, text, n) ? 0 : -1;
}

int policy_diff(const struct conf_policy *before, const struct conf_policy *now,
                const struct policy_diff_options *o, struct buf *out, size_t *ret_differences,
                struct err *err)
{
    const struct conf_policy *confs[2] = {before, now};
    int64_t moments[MOMENTS_MAX];
    size_t n_moments = 0;
    struct diff d = {.options = o, .out = out, .list = o->json ? json_array() : NULL};
    mem_auto(space_free) struct space *s = space_new(confs, 2, err);
    int rc = s == NULL ? -1 : find_moments(confs, o->now_s, moments, &n_moments, err);
    for (size_t i = 0; rc == 0 && i < n_moments; i++) {
        rc = compare_at(&d, s, moments[i], err);
    }
    if (rc == 0 && d.list != NULL) {
        json_t *doc = json_pack("{s:I, s:O}", "differences", (json_int_t)d.n, "told", d.list);
        rc = json_dump_callback(doc, write_json, out, JSON_INDENT(2)) == 0 ? 0 : -1;
        buf_printf(out, "\n");
        json_decref(doc);
        if (rc != 0) {
            err_set(err, ERR_LIMIT, "the differences are too many to print");
        }
    } else if (rc == 0 && d.n > o->max) {
        buf_printf(out, "and %zu more\n", d.n - o->max);
    }
    json_decref(d.list);
    if (rc == 0) {
        *ret_differences = d.n;
    }
    return rc;
}
