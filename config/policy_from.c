/* policy_from: who calls, as a Policy file says it. A pattern that could never match, or would
 * match more than it reads like, is refused here: nobody finds it later. */
#include <postern/conf.h>

#include <postern/spiffe.h>
#include <stdio.h>
#include <string.h>

#include "policy_priv.h"

static bool check_prefix_id(struct context *c, const struct field *f, const struct node *n,
                            struct str prefix)
{
    char text[2200];
    struct spiffe_id id;
    struct err err = ERR_INIT;
    if (prefix.n > 2048) {
        return pattern_refuse(c, f, n, NULL, "longer than a SPIFFE ID can be");
    }
    /* Any ID with this prefix is as good as one that goes on with a letter. */
    int len = snprintf(text, sizeof(text), "%.*sx", (int)prefix.n, prefix.p);
    if (spiffe_id_parse((struct str){text, (size_t)len}, &id, &err) != 0) {
        return pattern_refuse(c, f, n, NULL, err.what);
    }
    if (id.path.n == 0) {
        return pattern_refuse(
            c, f, n, "write 'trust_domains' for a whole trust domain, or put a / before the *",
            "which matches trust domains that only begin alike");
    }
    return true;
}

/* Each star as any segment: what is left has to be an ID. */
static bool check_glob(struct context *c, const struct field *f, const struct node *n)
{
    char text[2100];
    size_t len = 0;
    struct spiffe_id id;
    struct err err = ERR_INIT;
    if (c->level < 2) {
        return pattern_refuse_level(c, f, n, "* as a segment");
    }
    for (size_t i = 0; i < n->text.n && len < sizeof(text); i++) {
        bool star = n->text.p[i] == '*';
        size_t stars = star && i + 1 < n->text.n && n->text.p[i + 1] == '*' ? 2 : 1;
        char after = i + stars < n->text.n ? n->text.p[i + stars] : '\0';
        if (star && (n->text.p[i - 1] != '/' || (after != '/' && after != '\0'))) {
            return pattern_refuse(c, f, n, NULL, "where a * stands for a whole segment");
        }
        if (stars == 2 && after != '\0') {
            return pattern_refuse(c, f, n, NULL, "where ** may stand at the end only");
        }
        text[len++] = star ? 'x' : n->text.p[i];
        i += stars - 1;
    }
    if (spiffe_id_parse((struct str){text, len}, &id, &err) != 0) {
        return pattern_refuse(c, f, n, NULL, err.what);
    }
    if (n->text.p[id.trust_domain.p - text] == '*') {
        return pattern_refuse(c, f, n, "write 'trust_domains' for several",
                              "with a * for the trust domain");
    }
    return true;
}

bool policy_check_principal(struct context *c, const struct field *f, const struct node *n)
{
    struct str rest;
    struct spiffe_id id;
    struct err err = ERR_INIT;
    if (conf_is_glob(n->text.p)) {
        return check_glob(c, f, n);
    }
    switch (pattern_split(n->text, &rest)) {
    case PATTERN_ANY:
        return true;
    case PATTERN_BAD:
        return pattern_refuse_star(c, f, n);
    case PATTERN_EXACT:
        if (spiffe_id_parse(rest, &id, &err) != 0) {
            return pattern_refuse(c, f, n, NULL, err.what);
        }
        if (id.path.n == 0) {
            return pattern_refuse(c, f, n, "write 'trust_domains' for all of its workloads",
                                  "the trust domain itself and no workload");
        }
        return true;
    case PATTERN_PREFIX:
        return check_prefix_id(c, f, n, rest);
    case PATTERN_SUFFIX:
        for (size_t i = 0; i < rest.n; i++) {
            char ch = rest.p[i];
            bool ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                      (ch >= '0' && ch <= '9') || memchr("._-/", ch, 4) != NULL;
            if (!ok) {
                return pattern_refuse(c, f, n, NULL, "which no SPIFFE ID can end with");
            }
        }
        if (rest.p[rest.n - 1] == '/') {
            return pattern_refuse(c, f, n, NULL, "which no SPIFFE ID can end with");
        }
        return true;
    }
    return false;
}

/* Names that a gateway's ordinary authorities vouch for, as x509_peers.h writes them. */
static bool is_other_name(struct str text, struct str *ret_kind)
{
    static const struct str kinds[] = {{"dns:", 4}, {"uri:", 4}, {"cn:", 3},
                                       {"ou:", 3},  {"ip:", 3},  {"x509:", 5}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (str_has_prefix(text, kinds[i])) {
            *ret_kind = kinds[i];
            return true;
        }
    }
    return false;
}

static bool check_peer(struct context *c, const struct field *f, const struct node *n)
{
    struct str kind = STR_NONE, rest;
    if (!is_other_name(n->text, &kind)) {
        return policy_check_principal(c, f, n);
    }
    if (n->text.n == kind.n) {
        return pattern_refuse(c, f, n, "put a * behind it for every name of the kind",
                              "a kind and no name");
    }
    if (pattern_split(n->text, &rest) == PATTERN_BAD) {
        return pattern_refuse_star(c, f, n);
    }
    for (size_t i = 0; i < n->text.n; i++) {
        char ch = n->text.p[i];
        if ((unsigned char)ch < 0x20 || ch == 0x7f) {
            return pattern_refuse(c, f, n, NULL, "with a control character, which no name has");
        }
        if (kind.p[0] == 'd' && ch >= 'A' && ch <= 'Z') {
            return pattern_refuse(c, f, n, NULL, "where DNS names are told in lower case");
        }
    }
    return true;
}

/* A segment of a path, as a pattern. */
static bool check_segment(struct context *c, const struct field *f, const struct node *n)
{
    struct str rest;
    if (pattern_split(n->text, &rest) == PATTERN_BAD) {
        return pattern_refuse_star(c, f, n);
    }
    for (size_t i = 0; i < rest.n; i++) {
        char ch = rest.p[i];
        bool ok = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                  (ch >= '0' && ch <= '9') || memchr("._-", ch, 3) != NULL;
        if (!ok) {
            return pattern_refuse(c, f, n, NULL, "which no segment of a SPIFFE ID can be");
        }
    }
    return true;
}

static void check_from(struct context *c, const struct node *map, void *value)
{
    const struct conf_policy_from *from = value;
    policy_check_values(c, node_get(map, "claims"), &from->claims, true);
    policy_check_values(c, node_get(map, "not_claims"), &from->not_claims, false);
}

/* --- the table -------------------------------------------------------------------------------- */
#define PEER                                                                                       \
    .max = 2049, .check = check_peer,                                                              \
    .type_doc = "SPIFFE ID, name such as `dns:a.example`, `*`, `prefix*`, `*suffix`, or `*` and "  \
                "`**` for segments",                                                               \
    .expected = "a SPIFFE ID, *, or one with a * at its beginning or end"
#define SEGMENT                                                                                    \
    .max = 255, .level = 2, .check = check_segment,                                                \
    .type_doc = "name, `*`, `prefix*` or `*suffix`",                                               \
    .expected = "a name, or one with a * at its beginning or end"

static const struct field fields_from[] = {
    STRINGS(principals, TYPE_TEXT, conf_policy_from, PEER,
            .doc = "Who calls. Names with their kind (`dns:`, `uri:`, `cn:`, `ou:`, `ip:`, "
                   "`x509:`) are those "
                   "of peers by ordinary CAs, at a gateway."),
    STRINGS(not_principals, TYPE_TEXT, conf_policy_from, PEER, .doc = "Anyone but these."),
    STRINGS(namespaces, TYPE_TEXT, conf_policy_from, SEGMENT,
            .doc = "NAMESPACE of an identity of the form `spiffe://TD/ns/NAMESPACE/sa/ACCOUNT`; "
                   "one of another form has none."),
    STRINGS(not_namespaces, TYPE_TEXT, conf_policy_from, SEGMENT, .doc = "Any but these."),
    STRINGS(service_accounts, TYPE_TEXT, conf_policy_from, SEGMENT,
            .doc = "ACCOUNT of such a one."),
    STRINGS(not_service_accounts, TYPE_TEXT, conf_policy_from, SEGMENT, .doc = "Any but these."),
    STRINGS(trust_domains, TYPE_TRUST_DOMAIN, conf_policy_from,
            .doc = "The trust domain of who calls."),
    STRINGS(not_trust_domains, TYPE_TRUST_DOMAIN, conf_policy_from, .doc = "Any but these."),
    {.name = "ip_blocks",
     .type = TYPE_CIDR,
     LIST_AT(struct conf_policy_from, ip_blocks.items, ip_blocks.n),
     .empty_advice = LEAVE_OUT,
     .doc = "The source address of the connection."},
    {.name = "not_ip_blocks",
     .type = TYPE_CIDR,
     LIST_AT(struct conf_policy_from, not_ip_blocks.items, not_ip_blocks.n),
     .empty_advice = LEAVE_OUT,
     .doc = "Any but these."},
    VALUES(claims, conf_policy_from, table_policy_claim,
           .doc = "Of the verified token that the request brings: all of these hold."),
    VALUES(not_claims, conf_policy_from, table_policy_claim, .doc = "None of these holds."),
};
const struct table table_policy_from = {
    .name = "an element of 'from'",
    .doc = "All keys of one element must hold; one element is enough.",
    .size = sizeof(struct conf_policy_from),
    FIELDS(fields_from),
    .empty_advice = "leave 'from' out to speak of every caller",
    .check = check_from,
};
