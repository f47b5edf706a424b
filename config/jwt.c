/* jwt: whose tokens in requests count, in a Proxy or Gateway file. */
#include <postern/conf.h>

#include <string.h>

#include "config_priv.h"

static bool check_header(struct context *c, const struct field *f, const struct node *n)
{
    static const char *const taken[] = {"authorization",
                                        "cookie",
                                        "host",
                                        "connection",
                                        "te",
                                        "trailer",
                                        "upgrade",
                                        "expect",
                                        "content-length",
                                        "transfer-encoding",
                                        "x-forwarded-client-cert"};
    for (size_t i = 0; i < n->text.n; i++) {
        char ch = n->text.p[i];
        if (!(ch >= 'a' && ch <= 'z') && !(ch >= 'A' && ch <= 'Z') && !(ch >= '0' && ch <= '9') &&
            ch != '-' && ch != '_') {
            value_fail(c, f, n, NULL, "which holds other signs than a header's name");
            return false;
        }
    }
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        if (str_eq_nocase(n->text, str_of(taken[i]))) {
            value_fail(c, f, n,
                       i == 0 ? "leave the key out: that is where tokens are looked for" : NULL,
                       "which has another meaning");
            return false;
        }
    }
    return true;
}

/* Where keys come from is said once. */
static void check_keys(struct context *c, const struct node *map, const struct conf_jwt *j)
{
    const struct node *bundle = node_get(map, "bundle");
    bool file = node_get(map, "jwks_file") != NULL;
    if (!file && !j->bundle) {
        report(c, bundle != NULL ? bundle : map, "one of jwks_file and 'bundle: true'", NULL,
               "where the keys of these tokens come from is not said");
    } else if (file && j->bundle) {
        report(c, bundle, "one of jwks_file and 'bundle: true'", NULL,
               "where the keys of these tokens come from is said twice");
    } else if (j->bundle && node_get(map, "trust_domain") == NULL) {
        report(c, bundle, NULL, "name its keys as jwks_file",
               "an agent tells the keys of trust domains, and of no issuer");
    }
}

static void check_jwt(struct context *c, const struct node *map, void *value)
{
    struct conf_jwt *j = value;
    if ((node_get(map, "issuer") != NULL) == (node_get(map, "trust_domain") != NULL)) {
        report(c, map, "one of issuer and trust_domain", NULL, "whose tokens these are is %s",
               j->issuer != NULL ? "said twice" : "not said");
    }
    check_keys(c, map, j);
    for (char *p = j->header; p != NULL && *p != '\0'; p++) {
        if (*p >= 'A' && *p <= 'Z') {
            *p = (char)(*p - 'A' + 'a');
        }
    }
}

static const struct field fields_jwt[] = {
    {.name = "issuer",
     .type = TYPE_TEXT,
     .max = 1024,
     AT(struct conf_jwt, issuer),
     .doc = "Exactly what the `iss` of such a token says."},
    {.name = "trust_domain",
     .type = TYPE_TRUST_DOMAIN,
     AT(struct conf_jwt, trust_domain),
     .doc = "Instead: the tokens are JWT-SVIDs of this trust domain."},
    {.name = "jwks_file",
     .type = TYPE_PATH,
     AT(struct conf_jwt, jwks_file),
     .def_doc = "none: `bundle`",
     .doc = "Its public keys, as a JWK set; of a trust domain, its bundle as JSON. Read again on "
            "changes, also without SIGHUP."},
    {.name = "bundle",
     .type = TYPE_BOOL,
     AT(struct conf_jwt, bundle),
     .def = "false",
     .doc =
         "In place of `jwks_file`: the keys are those that the agent of `identity` tells of this "
         "trust domain, as it tells them. Until it has told any, none of these tokens holds."},
    {.name = "audiences",
     .type = TYPE_TEXT,
     .max = 1024,
     .required = true,
     LIST_AT(struct conf_jwt, audiences.items, audiences.n),
     .empty_advice = "name whom tokens are for: without that, any token of the issuer would do",
     .doc = "One of these has to be among the token's `aud`."},
    {.name = "header",
     .type = TYPE_TEXT,
     .max = 128,
     .check = check_header,
     AT(struct conf_jwt, header),
     .def_doc = "`Authorization`, behind `Bearer`",
     .doc = "Where the token is: a header that holds nothing else."},
    {.name = "forward",
     .type = TYPE_BOOL,
     AT(struct conf_jwt, forward),
     .def = "true",
     .doc = "`false`: the header with such a token does not go on to the workload."},
};
const struct table table_request_jwt = {
    .name = "an element of 'jwt'",
    .doc = "Whose tokens in requests count. A request with a token that does not hold is answered "
           "with "
           "401; the claims of one that does are what `claims` in a policy speaks of.",
    .size = sizeof(struct conf_jwt),
    FIELDS(fields_jwt),
    .check = check_jwt,
};

void jwt_check(struct context *c, const struct node *map, const struct conf_proxy *p)
{
    const struct node *list = node_get(map, "jwt");
    if (list == NULL || list->kind != NODE_LIST) {
        return;
    }
    schema_check_unique(c, list, "issuer", "issuer");
    schema_check_unique(c, list, "trust_domain", "trust domain");
    for (const struct node *n = list->child; p->no_identity && n != NULL; n = n->next) {
        const struct node *bundle = n->kind == NODE_MAP ? node_get(n, "bundle") : NULL;
        if (bundle != NULL && str_eq(bundle->text, STR_LIT("true"))) {
            report(c, bundle, NULL, "give the file an 'identity'",
                   "'bundle: true' in a file that has no agent");
        }
    }
    if (p->jwt.n > CONF_JWT_MAX) {
        report(c, list, NULL, NULL, "%zu elements, more than %d", p->jwt.n, CONF_JWT_MAX);
    }
}
