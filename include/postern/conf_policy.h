/*
 * conf_policy: a Policy file. What each clause means, also when its fact is missing, is in
 * docs/authorization.md; here is how it is written down. A pattern is "*", exact, "prefix*" or
 * "*suffix", with at most one star, unless it is said otherwise.
 *
 * An absent list is n == 0 and asks for nothing. See conf.h for the rest: ownership, units.
 */
#ifndef POSTERN_CONF_POLICY_H
#define POSTERN_CONF_POLICY_H

#include <postern/conf_bounds.h>
#include <postern/conf_lists.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum conf_action { CONF_ALLOW, CONF_DENY, CONF_AUDIT };
enum conf_rule_mode { CONF_ENFORCE, CONF_DRY_RUN };

/* A named fact that a request may have several times, or not at all: a query parameter, a header,
 * a claim. Exactly one of `values` and `present` is there. */
struct conf_policy_value {
    /* Of a header: in lower case. Of a parameter: as decoded. Of a claim: keys from the outside
     * in, with '.' between them; in a key, '.' is written "\." and '\' is "\\". */
    char *name;
    struct conf_strings values; /* patterns */
    bool present;
};
/* A clause: positive, *every* element must hold; `not_`, none may. No name stands twice in one
 * positive list. */
struct conf_policy_values {
    struct conf_policy_value *items;
    size_t n;
};
enum { CONF_POLICY_VALUES_MAX = 16 }; /* elements of one such list, as written */

/* Who calls. */
struct conf_policy_from {
    /* A pattern; or a glob: a SPIFFE ID in which whole segments of the path are "*", exactly one
     * segment each, or the last is "**", any number, none included. It is a glob where a segment is
     * "**", or where a segment other than the last is "*": conf_is_glob. */
    struct conf_strings principals, not_principals;
    /* Of IDs of the form spiffe://TD/ns/NAMESPACE/sa/ACCOUNT and no longer one. Patterns. */
    struct conf_strings namespaces, not_namespaces;
    struct conf_strings service_accounts, not_service_accounts;
    struct conf_strings trust_domains, not_trust_domains; /* exact */
    struct conf_cidrs ip_blocks, not_ip_blocks;
    struct conf_policy_values claims, not_claims; /* request clauses, although they are here */
};

/* What is called. All but ports are request clauses. */
struct conf_policy_to {
    uint16_t *ports;
    size_t n_ports;
    uint16_t *not_ports;
    size_t n_not_ports;
    struct conf_strings methods, not_methods; /* exact */
    struct conf_strings hosts, not_hosts;     /* patterns; case-insensitive; port cut */
    /* A pattern; or a template: whole segments, as written and before any %XX is read, may be "{}",
     * exactly one segment that is not empty, and once, after the last "{}", "{**}", any number of
     * segments, none included. There is no star besides. conf_is_template tells them. */
    struct conf_strings paths, not_paths;
    struct conf_policy_values query, not_query;
    struct conf_policy_values headers, not_headers;
    struct conf_strings grpc, not_grpc; /* "pkg.Service/Method", or "pkg.Service" and "/" and "*" */
};

struct conf_role {
    char *name;    /* unique in the file */
    unsigned line; /* where it stands in the file */
    struct conf_policy_to *to;
    size_t n_to;
};

struct conf_rule {
    char *name;            /* unique in the file */
    unsigned line, column; /* where it stands in the file */
    enum conf_action action;
    enum conf_rule_mode mode;
    char *reason;      /* for people; NULL: none */
    int64_t expires_s; /* since the epoch: from then on it is not there; 0: never */
    struct conf_strings target_principals; /* as principals above; none: every target */
    struct conf_policy_from *from;         /* none: anyone, peers without identity included */
    size_t n_from;
    struct conf_policy_to *to; /* none: anything. What `roles` say is in it already. */
    size_t n_to;
    struct conf_strings roles; /* names, for people; `to` holds of any of them, and of itself */
};

struct conf_policy {
    char *path;
    struct conf_role *roles;
    size_t n_roles;
    struct conf_rule *rules;
    size_t n_rules;
};

/* Of an item of a loaded file. Whoever judges links no configuration, so they are here. */
static inline bool conf_has_segment(const char *text, const char *segment, bool last_counts)
{
    size_t n = strlen(segment);
    for (const char *p = strstr(text, segment); p != NULL; p = strstr(p + 1, segment)) {
        bool begins = p != text && p[-1] == '/';
        if (begins && (p[n] == '/' || (last_counts && p[n] == '\0'))) {
            return true;
        }
    }
    return false;
}

static inline bool conf_is_glob(const char *principal)
{
    return strncmp(principal, "spiffe://", 9) == 0 &&
           (conf_has_segment(principal + 9, "*", false) ||
            conf_has_segment(principal + 9, "**", true));
}

static inline bool conf_is_template(const char *path)
{
    return conf_has_segment(path, "{}", true) || conf_has_segment(path, "{**}", true);
}

static inline bool conf_policy_from_wants_request(const struct conf_policy_from *f)
{
    return f->claims.n + f->not_claims.n > 0;
}

static inline bool conf_policy_to_wants_request(const struct conf_policy_to *t)
{
    return t->methods.n + t->not_methods.n + t->hosts.n + t->not_hosts.n + t->paths.n +
               t->not_paths.n + t->query.n + t->not_query.n + t->headers.n + t->not_headers.n +
               t->grpc.n + t->not_grpc.n >
           0;
}

#endif
