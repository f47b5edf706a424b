#include "keeper_priv.h"

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
        free(e->path);
        free(e->hint);
        for (size_t d = 0; d < e->n_dns_names; d++) {
            free(e->dns_names[d]);
        }
        free(e->dns_names);
    }
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

static int entry_check(const struct agent_msg_entry *msg, struct str trust_domain, struct err *err)
{
    struct spiffe_id id;

    if (msg->id_len == 0) {
        return err_set(err, ERR_CONFIG, "an entry has no id");
    }
    if (spiffe_id_parse(text(msg->spiffe_id, msg->spiffe_id_len), &id, err) == -1) {
        return -1;
    }
    if (!spiffe_id_member_of(&id, trust_domain)) {
        err_set(err, ERR_CONFIG, "%.*s is of another trust domain", STR_ARG(id.text));
        return err_expected(err, "an ID in %.*s", STR_ARG(trust_domain));
    }
    if (id.path.n == 0) {
        err_set(err, ERR_CONFIG, "%.*s names the trust domain itself", STR_ARG(id.text));
        return err_expected(err, "an ID with a path");
    }
    if (!msg->has_uid && !msg->has_gid && !msg->has_path) {
        return err_set(err, ERR_CONFIG, "the entry has no selector and would match everybody");
    }
    if (msg->has_path && (msg->path_len == 0 || msg->path[0] != '/')) {
        return err_set(err, ERR_CONFIG, "unix:path is not absolute");
    }
    for (size_t i = 0; i < msg->n_dns_names; i++) {
        struct str name = text(msg->dns_names[i].text, msg->dns_names[i].len);

        if (!dns_name_ok(name)) {
            return err_set(err, ERR_CONFIG, "\"%.*s\" is not a DNS name", STR_ARG(name));
        }
    }
    return 0;
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
    e->path = msg->has_path ? mem_must_strndup(msg->path, msg->path_len) : NULL;
    e->hint = msg->hint_len > 0 ? mem_must_strndup(msg->hint, msg->hint_len) : NULL;
    e->has_uid = msg->has_uid;
    e->has_gid = msg->has_gid;
    e->uid = msg->uid;
    e->gid = msg->gid;
    e->ttl_s = msg->ttl_s;
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

static bool same_entry(const struct keeper_entry *a, const struct keeper_entry *b)
{
    if (!same_text(a->spiffe_id, b->spiffe_id) || !same_text(a->path, b->path) ||
        !same_text(a->hint, b->hint) || a->has_uid != b->has_uid || a->has_gid != b->has_gid ||
        a->uid != b->uid || a->gid != b->gid || a->ttl_s != b->ttl_s ||
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
    for (size_t i = 0; set != NULL && i < set->n; i++) {
        if (strcmp(set->items[i].id, id) == 0) {
            return &set->items[i];
        }
    }
    return NULL;
}

int keeper_entries_check(const struct keeper_entries *set, const struct keeper_entries *old,
                         uint32_t *ret_added, uint32_t *ret_removed, uint32_t *ret_changed,
                         struct err *err)
{
    uint32_t added = 0, removed = 0, changed = 0;

    if (set->refused.code != ERR_NONE) {
        *err = set->refused;
        return -1;
    }
    if (set->n != set->expected) {
        return err_set(err, ERR_PROTOCOL, "%zu of %zu entries arrived", set->n, set->expected);
    }
    for (size_t i = 0; i < set->n; i++) {
        const struct keeper_entry *before = find_id(old, set->items[i].id);

        if (find_id(set, set->items[i].id) != &set->items[i]) {
            return err_set(err, ERR_CONFIG, "two entries have the id \"%s\"", set->items[i].id);
        }
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

bool keeper_entry_grants(const struct keeper_entry *e, const struct keeper_facts *facts)
{
    if (!e->has_uid && !e->has_gid && e->path == NULL) {
        return false;
    }
    return (!e->has_uid || e->uid == facts->uid) && (!e->has_gid || e->gid == facts->gid) &&
           (e->path == NULL || (facts->path != NULL && strcmp(e->path, facts->path) == 0));
}

size_t keeper_entries_match(const struct keeper_entries *set, const struct keeper_facts *facts,
                            uint32_t ret[AGENT_IDENTITIES_MAX])
{
    size_t n = 0;

    for (size_t i = 0; set != NULL && i < set->n && n < AGENT_IDENTITIES_MAX; i++) {
        if (keeper_entry_grants(&set->items[i], facts)) {
            ret[n++] = (uint32_t)i;
        }
    }
    return n;
}
