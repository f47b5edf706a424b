#include "keeper_index.h"

#include <postern/mem.h>
#include <postern/spiffe.h>
#include <stdlib.h>
#include <string.h>

struct keeper_entries *keeper_entries_new(uint64_t generation, size_t expected)
{
    struct keeper_entries *set = mem_must_new(struct keeper_entries);

    set->generation = generation;
    set->expected = expected;
    set->items = mem_must_calloc(expected > 0 ? expected : 1, sizeof(*set->items));
    return set;
}

struct keeper_entries *keeper_entries_free(struct keeper_entries *set)
{
    if (set == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < set->n; i++) {
        struct keeper_entry *e = &set->items[i];

        free(e->id);
        free(e->spiffe_id);
        free(e->hint);
        free(e->texts);
        free(e->selectors);
        for (size_t d = 0; d < e->n_dns_names; d++) {
            free(e->dns_names[d]);
        }
        free(e->dns_names);
    }
    keeper_index_free(set->index);
    free(set->items);
    free(set);
    return NULL;
}

static struct str text(const char *p, uint16_t len)
{
    return (struct str){p, len};
}

/* Letters, digits and hyphens, no wildcard: what goes into a certificate is checked where it is
 * signed, whoever else did so before. */
static bool dns_name_ok(struct str name)
{
    size_t label = 0;

    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

        if (c == '.') {
            if (label == 0 || name.p[i - 1] == '-') {
                return false;
            }
            label = 0;
        } else if (alnum || (c == '-' && label > 0)) {
            label++;
        } else {
            return false;
        }
        if (label > 63) {
            return false;
        }
    }
    return label > 0 && name.p[name.n - 1] != '-';
}

/* --- what a selector may say ------------------------------------------------------------------ */
static bool hex_ok(struct str s, size_t n)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((s.p[i] < '0' || s.p[i] > '9') && (s.p[i] < 'a' || s.p[i] > 'f')) {
            return false;
        }
    }
    return s.n == n;
}

static bool selector_ok(const struct agent_selector *s, struct str value)
{
    static const struct str SHA256 = {"sha256:", 7};
    const char *colon;

    switch ((enum agent_selector_type)s->type) {
    case AGENT_SELECTOR_UNIX_UID:
    case AGENT_SELECTOR_UNIX_USER:
    case AGENT_SELECTOR_UNIX_GID:
    case AGENT_SELECTOR_UNIX_GROUP:
    case AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GID:
    case AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GROUP:
        return value.n == 0;
    case AGENT_SELECTOR_CONTAINER_RUNTIME:
        return value.n == 0 && s->number > AGENT_RUNTIME_OTHER && s->number < AGENT_N_RUNTIMES;
    case AGENT_SELECTOR_UNIX_PATH:
        return value.n > 1 && value.p[0] == '/';
    case AGENT_SELECTOR_UNIX_SHA256:
    case AGENT_SELECTOR_CONTAINER_ID:
        return hex_ok(value, 64);
    case AGENT_SELECTOR_K8S_IMAGE_DIGEST:
        return str_has_prefix(value, SHA256) &&
               hex_ok((struct str){value.p + SHA256.n, value.n - SHA256.n}, 64);
    case AGENT_SELECTOR_K8S_POD_LABEL:
        colon = value.n > 0 ? memchr(value.p, ':', value.n) : NULL;
        return colon != NULL && colon != value.p;
    case AGENT_SELECTOR_SYSTEMD_ID:
    case AGENT_SELECTOR_K8S_NS:
    case AGENT_SELECTOR_K8S_SA:
    case AGENT_SELECTOR_K8S_POD_NAME:
    case AGENT_SELECTOR_K8S_POD_UID:
    case AGENT_SELECTOR_K8S_NODE_NAME:
    case AGENT_SELECTOR_K8S_CONTAINER_NAME:
    case AGENT_SELECTOR_K8S_CONTAINER_IMAGE:
        return value.n > 0;
    case AGENT_N_SELECTORS:
        break;
    }
    return false;
}

static int selectors_check(const struct agent_msg_entry *msg, unsigned *ret_kinds, struct err *err)
{
    size_t at = 0;

    *ret_kinds = 0;
    if (msg->n_selectors == 0) {
        return err_set(err, ERR_CONFIG, "the entry has no selector and would match everybody");
    }
    for (size_t i = 0; i < msg->n_selectors; i++) {
        const struct agent_selector *s = &msg->selectors[i];
        struct str value = {msg->selector_text + at, s->text_len};

        if (!selector_ok(s, value)) {
            return err_set(err, ERR_CONFIG, "\"%.*s\" is no value of the selector %s",
                           STR_ARG(value), agent_selector_name(s->type));
        }
        at += s->text_len;
        *ret_kinds |= keeper_selector_kind(s->type);
    }
    return 0;
}

static int id_check(struct str spiffe_id, unsigned kinds, struct str trust_domain, struct err *err)
{
    struct spiffe_id id;
    struct str domain;

    if (spiffe_template_is(spiffe_id)) {
        if (spiffe_template_check(spiffe_id, kinds, &domain, err) == -1) {
            return -1;
        }
    } else if (spiffe_id_parse(spiffe_id, &id, err) == -1) {
        return -1;
    } else if (id.path.n == 0) {
        err_set(err, ERR_CONFIG, "%.*s names the trust domain itself", STR_ARG(id.text));
        return err_expected(err, "an ID with a path");
    } else {
        domain = id.trust_domain;
    }
    if (!str_eq(domain, trust_domain)) {
        err_set(err, ERR_CONFIG, "%.*s is of another trust domain", STR_ARG(spiffe_id));
        return err_expected(err, "an ID in %.*s", STR_ARG(trust_domain));
    }
    return 0;
}

static int entry_check(const struct agent_msg_entry *msg, struct str trust_domain, struct err *err)
{
    unsigned kinds;

    if (msg->id_len == 0) {
        return err_set(err, ERR_CONFIG, "an entry has no id");
    }
    if (selectors_check(msg, &kinds, err) == -1 ||
        id_check(text(msg->spiffe_id, msg->spiffe_id_len), kinds, trust_domain, err) == -1) {
        return -1;
    }
    for (size_t i = 0; i < msg->n_dns_names; i++) {
        struct str name = text(msg->dns_names[i].text, msg->dns_names[i].len);

        if (!dns_name_ok(name)) {
            return err_set(err, ERR_CONFIG, "\"%.*s\" is not a DNS name", STR_ARG(name));
        }
    }
    return 0;
}

/* --- a set in the making ---------------------------------------------------------------------- */
static void take_selectors(struct keeper_entry *e, const struct agent_msg_entry *msg)
{
    size_t from = 0, to = 0;

    e->texts = mem_must_calloc((size_t)msg->selector_text_len + msg->n_selectors + 1, 1);
    e->selectors = mem_must_calloc(msg->n_selectors, sizeof(*e->selectors));
    for (size_t i = 0; i < msg->n_selectors; i++) {
        const struct agent_selector *s = &msg->selectors[i];

        memcpy(e->texts + to, msg->selector_text + from, s->text_len);
        e->selectors[i] =
            (struct keeper_selector){.type = s->type, .number = s->number, .text = e->texts + to};
        from += s->text_len;
        to += (size_t)s->text_len + 1;
    }
    e->n_selectors = msg->n_selectors;
}

void keeper_entries_add(struct keeper_entries *set, const struct agent_msg_entry *msg,
                        struct str trust_domain)
{
    struct keeper_entry *e;

    if (set->refused.code != ERR_NONE) {
        return;
    }
    if (set->n == set->expected || msg->index != set->n) {
        err_set(&set->refused, ERR_PROTOCOL, "entries arrive out of order");
        return;
    }
    if (entry_check(msg, trust_domain, &set->refused) == -1) {
        err_prefix(&set->refused, "entry \"%.*s\"", STR_ARG(text(msg->id, msg->id_len)));
        err_where(&set->refused, "%u",
                  (unsigned)msg->line); /* of the file, whose name is not ours */
        return;
    }
    e = &set->items[set->n++];
    e->id = mem_must_strndup(msg->id, msg->id_len);
    e->spiffe_id = mem_must_strndup(msg->spiffe_id, msg->spiffe_id_len);
    e->is_template = spiffe_template_is(str_of(e->spiffe_id));
    take_selectors(e, msg);
    e->line = msg->line;
    e->hint = msg->hint_len > 0 ? mem_must_strndup(msg->hint, msg->hint_len) : NULL;
    e->ttl_s = msg->ttl_s;
    e->jwt_ttl_s = msg->jwt_ttl_s;
    e->dns_names = mem_must_calloc((size_t)msg->n_dns_names + 1, sizeof(*e->dns_names));
    for (size_t i = 0; i < msg->n_dns_names; i++) {
        e->dns_names[i] = mem_must_strndup(msg->dns_names[i].text, msg->dns_names[i].len);
        e->n_dns_names = i + 1;
    }
}

static bool same_text(const char *a, const char *b)
{
    return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

static bool same_selectors(const struct keeper_entry *a, const struct keeper_entry *b)
{
    if (a->n_selectors != b->n_selectors) {
        return false;
    }
    for (size_t i = 0; i < a->n_selectors; i++) {
        const struct keeper_selector *x = &a->selectors[i], *y = &b->selectors[i];

        if (x->type != y->type || x->number != y->number || strcmp(x->text, y->text) != 0) {
            return false;
        }
    }
    return true;
}

static bool same_entry(const struct keeper_entry *a, const struct keeper_entry *b)
{
    if (!same_text(a->spiffe_id, b->spiffe_id) || !same_text(a->hint, b->hint) ||
        !same_selectors(a, b) || a->ttl_s != b->ttl_s || a->jwt_ttl_s != b->jwt_ttl_s ||
        a->n_dns_names != b->n_dns_names) {
        return false;
    }
    for (size_t i = 0; i < a->n_dns_names; i++) {
        if (!same_text(a->dns_names[i], b->dns_names[i])) {
            return false;
        }
    }
    return true;
}

static const struct keeper_entry *find_id(const struct keeper_entries *set, const char *id)
{
    size_t from = 0, to = set != NULL && set->index != NULL ? set->n : 0;

    while (from < to) {
        size_t middle = from + (to - from) / 2;
        const struct keeper_entry *e = &set->items[set->index->by_id[middle]];
        int r = strcmp(id, e->id);

        if (r == 0) {
            return e;
        }
        if (r < 0) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    return NULL;
}

static const char *second_id(const struct keeper_entries *set)
{
    for (size_t i = 1; i < set->n; i++) {
        const char *id = set->items[set->index->by_id[i]].id;

        if (strcmp(id, set->items[set->index->by_id[i - 1]].id) == 0) {
            return id;
        }
    }
    return NULL;
}

int keeper_entries_check(struct keeper_entries *set, const struct keeper_entries *old,
                         uint32_t *ret_added, uint32_t *ret_removed, uint32_t *ret_changed,
                         struct err *err)
{
    uint32_t added = 0, removed = 0, changed = 0;
    const char *twice;

    if (set->refused.code != ERR_NONE) {
        if (err != NULL) {
            *err = set->refused;
        }
        return -1;
    }
    if (set->n != set->expected) {
        return err_set(err, ERR_PROTOCOL, "%zu of %zu entries arrived", set->n, set->expected);
    }
    keeper_index_free(set->index);
    set->index = keeper_index_new(set->items, set->n);
    twice = second_id(set);
    if (twice != NULL) {
        return err_set(err, ERR_CONFIG, "two entries have the id \"%s\"", twice);
    }
    for (size_t i = 0; i < set->n; i++) {
        const struct keeper_entry *before = find_id(old, set->items[i].id);

        added += before == NULL;
        changed += before != NULL && !same_entry(before, &set->items[i]);
    }
    for (size_t i = 0; old != NULL && i < old->n; i++) {
        removed += find_id(set, old->items[i].id) == NULL;
    }
    *ret_added = added;
    *ret_removed = removed;
    *ret_changed = changed;
    return 0;
}
