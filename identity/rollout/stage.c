/* Which proxies a staged policy is for. */
#include <postern/rollout.h>

#include <postern/agent_docs.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

enum { PERCENT_MAX = 100 };

bool rollout_label_ok(struct str label)
{
    size_t n_equals = 0;

    for (size_t i = 0; i < label.n; i++) {
        char c = label.p[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

        if (c == '=' && (i == 0 || i + 1 == label.n)) {
            return false;
        }
        n_equals += c == '=';
        if (!word && memchr("._-/=", c, 5) == NULL) {
            return false;
        }
    }
    return n_equals == 1 && label.n <= ROLLOUT_LABEL_MAX;
}

/* Printable, and of a form that can mean an identity. */
static bool pattern_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= ' ' || s.p[i] == 0x7f) {
            return false;
        }
    }
    return s.n > 0 && (s.p[0] == '*' || str_has_prefix(s, STR_LIT("spiffe://")));
}

static bool take_percent(struct rollout_stage *s, struct str value)
{
    uint64_t n;

    if (s->percent != 0 || !str_to_u64(value, PERCENT_MAX, &n) || n == 0) {
        return false;
    }
    s->percent = (unsigned)n;
    return true;
}

static bool take_term(struct rollout_stage *s, struct str term)
{
    static const struct str to = {"to=", 3}, label = {"label=", 6}, percent = {"percent=", 8};

    if (str_has_prefix(term, to) && s->n_to < ROLLOUT_TERMS_MAX) {
        s->to[s->n_to] = (struct str){term.p + to.n, term.n - to.n};
        return pattern_ok(s->to[s->n_to++]);
    }
    if (str_has_prefix(term, label) && s->n_labels < ROLLOUT_TERMS_MAX) {
        s->labels[s->n_labels] = (struct str){term.p + label.n, term.n - label.n};
        return rollout_label_ok(s->labels[s->n_labels++]);
    }
    return str_has_prefix(term, percent) &&
           take_percent(s, (struct str){term.p + percent.n, term.n - percent.n});
}

int rollout_stage_parse(struct str text, struct rollout_stage **ret, struct err *err)
{
    struct rollout_stage *s = mem_must_new(struct rollout_stage);
    struct str rest;
    bool ok = text.n > 0 && text.n <= ROLLOUT_STAGE_MAX && memchr(text.p, 0, text.n) == NULL;

    s->text = mem_must_strndup(ok ? text.p : "", ok ? text.n : 0);
    rest = str_of(s->text);
    while (ok && rest.n > 0) {
        const char *blank = memchr(rest.p, ' ', rest.n);
        size_t n = blank != NULL ? (size_t)(blank - rest.p) : rest.n;

        ok = take_term(s, (struct str){rest.p, n});
        rest = (struct str){rest.p + n, rest.n - n};
        if (ok && rest.n > 0) {
            rest = (struct str){rest.p + 1, rest.n - 1};
            ok = rest.n > 0; /* no blank at the end */
        }
    }
    if (!ok) {
        rollout_stage_free(s);
        err_set(err, ERR_USAGE, "this names no proxies");
        return err_expected(err,
                            "up to %d patterns of SPIFFE IDs (to=), %d labels (label=KEY=VALUE) "
                            "and percent=1 to 100",
                            ROLLOUT_TERMS_MAX, ROLLOUT_TERMS_MAX);
    }
    *ret = s;
    return 0;
}

struct rollout_stage *rollout_stage_free(struct rollout_stage *s)
{
    if (s != NULL) {
        free(s->text);
        free(s);
    }
    return NULL;
}

/* --- who is meant ----------------------------------------------------------------------------- */
/* FNV-1a; nothing depends on its being hard to turn around. */
static uint64_t add_to_hash(uint64_t h, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        h = (h ^ (uint8_t)s.p[i]) * UINT64_C(0x100000001b3);
    }
    return (h ^ 0xff) * UINT64_C(0x100000001b3);
}

static unsigned place_of(const struct rollout_proxy *p)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    h = add_to_hash(h, p->n_ids > 0 ? p->ids[0] : STR_NONE);
    h = add_to_hash(h, p->name);
    h ^= h >> 29; /* the low bits alone are made of the low bits alone */
    return (unsigned)(h % PERCENT_MAX);
}

static bool id_means(const struct rollout_stage *s, const struct rollout_proxy *p)
{
    for (size_t i = 0; i < s->n_to; i++) {
        for (size_t k = 0; k < p->n_ids; k++) {
            if (agent_doc_target_matches(s->to[i], p->ids[k])) {
                return true;
            }
        }
    }
    return s->n_to == 0;
}

static bool has_label(const struct rollout_proxy *p, struct str label)
{
    for (size_t i = 0; i < p->n_labels; i++) {
        if (str_eq(p->labels[i], label)) {
            return true;
        }
    }
    return false;
}

bool rollout_stage_means(const struct rollout_stage *s, const struct rollout_proxy *p)
{
    for (size_t i = 0; i < s->n_labels; i++) {
        if (!has_label(p, s->labels[i])) {
            return false;
        }
    }
    return id_means(s, p) && (s->percent == 0 || place_of(p) < s->percent);
}
