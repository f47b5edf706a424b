/* entries: the table of an Entries file: which caller gets which identity. */
#include <postern/conf.h>

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
     .type = TYPE_SPIFFE_ID,
     .required = true,
     AT(struct conf_entry, spiffe_id),
     .doc = "The identity, in the agent's trust domain."},
    {.name = "selectors",
     .type = TYPE_SELECTOR,
     .required = true,
     LIST_AT(struct conf_entry, selectors, n_selectors),
     .empty_advice = "an entry without selectors would give its identity to everyone",
     .doc = "What is true of the caller, all of it: `unix:uid:N`, `unix:user:NAME`, `unix:gid:N`, "
            "`unix:group:NAME`, `unix:path:/P`. Names are looked up when the file is read."},
    {.name = "ttl",
     .type = TYPE_DURATION_S,
     .min = 10,
     .max = 720 * 3600,
     AT(struct conf_entry, ttl_s),
     .def_doc = "the agent's `svid.ttl`",
     .doc = "Life of each SVID."},
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

/* A process has one uid, gid and executable, so two selectors of a type never hold at once. */
static int selector_type(struct str text)
{
    static const struct {
        const char *prefix;
        int type;
    } prefixes[] = {
        {"unix:uid:", CONF_SELECTOR_UID},   {"unix:user:", CONF_SELECTOR_UID},
        {"unix:gid:", CONF_SELECTOR_GID},   {"unix:group:", CONF_SELECTOR_GID},
        {"unix:path:", CONF_SELECTOR_PATH},
    };
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        if (str_has_prefix(text, str_of(prefixes[i].prefix))) {
            return prefixes[i].type;
        }
    }
    return -1;
}

static void check_entry(struct context *c, const struct node *map, void *value)
{
    static const char *const names[] = {"uid or user", "gid or group", "path"};
    struct conf_entry *e = value;
    e->line = map->line;
    const struct node *list = node_get(map, "selectors");
    bool seen[3] = {false};
    if (list == NULL || list->kind != NODE_LIST) {
        return;
    }
    for (const struct node *n = list->child; n != NULL; n = n->next) {
        int type = n->kind == NODE_SCALAR ? selector_type(n->text) : -1;
        if (type >= 0 && seen[type]) {
            report(c, n, "at most one of each type", "write an entry for each",
                   "a second selector by %s: no process has both", names[type]);
        }
        if (type >= 0) {
            seen[type] = true;
        }
    }
}

static void check_entries(struct context *c, const struct node *map, void *value)
{
    (void)value;
    schema_check_unique(c, node_get(map, "entries"), "id", "entry");
}
