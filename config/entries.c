/* entries: the table of an Entries file: which caller gets which identity. */
#include <postern/conf.h>

#include <postern/spiffe.h>
#include <string.h>

#include "config_priv.h"

/* RFC 1123, 2.1: letters, digits and hyphens, labels of at most 63. No wildcards: an SVID names a
 * workload, and clients that go by DNS names would take it for any other. */
static bool check_dns_name(struct context *c, const struct field *f, const struct node *n)
{
    size_t label = 0;
    bool ok = n->text.n <= 253;
    for (size_t i = 0; ok && i <= n->text.n; i++) {
        char ch = i < n->text.n ? n->text.p[i] : '.';
        if (ch == '.') {
            ok = label >= 1 && label <= 63 && n->text.p[i - 1] != '-';
            label = 0;
            continue;
        }
        bool alnum =
            (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        ok = alnum || (ch == '-' && label > 0);
        label++;
    }
    if (!ok) {
        struct shown s;
        bool star = memchr(n->text.p, '*', n->text.n) != NULL;
        report(c, n, f->expected, star ? "an SVID has no wildcards" : NULL,
               "'%s' holds %s, which is no DNS name", f->name, show(&s, n->text));
    }
    return ok;
}

static void check_entry(struct context *c, const struct node *map, void *value);

static const struct field fields_entry[] = {
    {.name = "id",
     .type = TYPE_NAME,
     .required = true,
     AT(struct conf_entry, id),
     .doc = "Unique in the file; in logs."},
    {.name = "spiffe_id",
     .type = TYPE_ID_TEMPLATE,
     .required = true,
     AT(struct conf_entry, spiffe_id),
     .doc = "The identity, in the agent's trust domain. May have variables, one a segment of the "
            "path, each of the kind of some selector: `{k8s.ns}`, `{k8s.sa}`, `{k8s.pod-name}`, "
            "`{k8s.pod-uid}`, `{k8s.container-name}`, `{k8s.node-name}`, `{unix.uid}`, "
            "`{unix.gid}`, `{systemd.id}`, `{container.id}`."},
    {.name = "selectors",
     .type = TYPE_SELECTOR,
     .required = true,
     LIST_AT(struct conf_entry, selectors, n_selectors),
     .empty_advice = "an entry without selectors would give its identity to everyone",
     .doc = "What is true of the caller, all of it. `unix:`: `uid:N`, `user:NAME`, `gid:N`, "
            "`group:NAME`, `supplementary_gid:N`, `supplementary_group:NAME`, `path:/P`, "
            "`sha256:HEX` (of the executable). `systemd:id:UNIT`. `container:`: `id:HEX`, "
            "`runtime:containerd|crio|docker|podman`. `k8s:`: `ns:`, `sa:`, `pod-name:`, "
            "`pod-uid:`, `pod-label:KEY:VALUE`, `node-name:`, `container-name:`, "
            "`container-image:`, `image-digest:sha256:HEX`. Names of users and groups are looked "
            "up when the file is read. See attestation.md."},
    {.name = "ttl",
     .type = TYPE_DURATION_S,
     .min = 10,
     .max = 720 * 3600,
     AT(struct conf_entry, ttl_s),
     .def_doc = "the agent's `svid.ttl`",
     .doc = "Life of each SVID."},
    {.name = "jwt_ttl",
     .type = TYPE_DURATION_S,
     .min = 1,
     .max = 24 * 3600,
     AT(struct conf_entry, jwt_ttl_s),
     .def_doc = "the agent's `jwt.ttl`",
     .doc = "Life of each JWT-SVID."},
    {.name = "dns_names",
     .type = TYPE_TEXT,
     .max = 1024,
     LIST_AT(struct conf_entry, dns_names.items, dns_names.n),
     .check = check_dns_name,
     .type_doc = "DNS name",
     .expected = "a DNS name such as orders.example.org",
     .doc = "DNS names in the certificate, for clients that go by them."},
    {.name = "hint",
     .type = TYPE_TEXT,
     .max = 1024,
     AT(struct conf_entry, hint),
     .doc = "Tells a workload with several identities which is meant for what."},
};
static const struct table table_entry = {
    .name = "an entry",
    .doc = "A caller gets every entry whose selectors all hold, in the order of the file; the "
           "first is its default.",
    .size = sizeof(struct conf_entry),
    FIELDS(fields_entry),
    .check = check_entry,
};

static void check_entries(struct context *c, const struct node *map, void *value);

static const struct field fields_entries[] = {
    KIND_FIELDS("Entries"),
    {.name = "entries",
     .type = TYPE_MAP,
     .table = &table_entry,
     .required = true,
     .may_be_empty = true,
     LIST_AT(struct conf_entries, entries, n_entries),
     .doc = "Who gets what; `[]` gives nobody anything."},
};
const struct table table_entries = {
    .name = "the file",
    .doc = "Selectors to identities. Named by `entries` in an Agent.",
    .size = sizeof(struct conf_entries),
    FIELDS(fields_entries),
    .check = check_entries,
};

/* What a process has one of, so that two selectors of it never hold at once; NULL: several. */
static const char *only_one(int type)
{
    static const char *const names[CONF_N_SELECTORS] = {
        [CONF_SELECTOR_UNIX_UID] = "uid or user",
        [CONF_SELECTOR_UNIX_USER] = "uid or user",
        [CONF_SELECTOR_UNIX_GID] = "gid or group",
        [CONF_SELECTOR_UNIX_GROUP] = "gid or group",
        [CONF_SELECTOR_UNIX_PATH] = "path",
        [CONF_SELECTOR_UNIX_SHA256] = "sha256",
        [CONF_SELECTOR_SYSTEMD_ID] = "systemd:id",
        [CONF_SELECTOR_CONTAINER_ID] = "container:id",
        [CONF_SELECTOR_CONTAINER_RUNTIME] = "container:runtime",
        [CONF_SELECTOR_K8S_NS] = "k8s:ns",
        [CONF_SELECTOR_K8S_SA] = "k8s:sa",
        [CONF_SELECTOR_K8S_POD_NAME] = "k8s:pod-name",
        [CONF_SELECTOR_K8S_POD_UID] = "k8s:pod-uid",
        [CONF_SELECTOR_K8S_NODE_NAME] = "k8s:node-name",
        [CONF_SELECTOR_K8S_CONTAINER_NAME] = "k8s:container-name",
        [CONF_SELECTOR_K8S_IMAGE_DIGEST] = "k8s:image-digest",
    };
    return names[type];
}

static unsigned selector_kind(int type)
{
    if (type <= CONF_SELECTOR_UNIX_SHA256) {
        return SPIFFE_KIND_UNIX;
    }
    if (type == CONF_SELECTOR_SYSTEMD_ID) {
        return SPIFFE_KIND_SYSTEMD;
    }
    return type <= CONF_SELECTOR_CONTAINER_RUNTIME ? SPIFFE_KIND_CONTAINER : SPIFFE_KIND_K8S;
}

/* Every variable of the ID has to be of a kind that the selectors ask for. */
static void check_variables(struct context *c, const struct node *map, const struct conf_entry *e,
                            unsigned kinds)
{
    struct err err = ERR_INIT;
    struct str domain;
    if (e->spiffe_id != NULL && spiffe_template_is(str_of(e->spiffe_id)) &&
        spiffe_template_check(str_of(e->spiffe_id), kinds, &domain, &err) != 0) {
        report(c, node_get(map, "spiffe_id"), err.expected, NULL, "'spiffe_id': %s", err.what);
    }
}

static void check_entry(struct context *c, const struct node *map, void *value)
{
    struct conf_entry *e = value;
    e->line = map->line;
    const struct node *list = node_get(map, "selectors");
    const char *seen[CONF_N_SELECTORS] = {NULL};
    size_t n_seen = 0;
    unsigned kinds = 0;
    bool all_known = true;
    if (list == NULL || list->kind != NODE_LIST) {
        return;
    }
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        int type = n->kind == NODE_SCALAR ? selector_type(n->text) : -1;
        if (type < 0) {
            all_known = false;
            continue;
        }
        const char *what = only_one(type);
        kinds |= selector_kind(type);
        for (size_t i = 0; what != NULL && i < n_seen; i++) {
            if (strcmp(seen[i], what) == 0) {
                report(c, n, "at most one of each type", "write an entry for each",
                       "a second selector by %s: no process has both", what);
            }
        }
        if (what != NULL && n_seen < CONF_N_SELECTORS) {
            seen[n_seen++] = what;
        }
    }
    if (all_known) {
        check_variables(c, map, e, kinds);
    }
}

static void check_entries(struct context *c, const struct node *map, void *value)
{
    (void)value;
    schema_check_unique(c, node_get(map, "entries"), "id", "entry");
}
