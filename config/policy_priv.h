/*
 * policy_priv: what the files of the Policy kind share.
 *
 *   policy.c          the file and its rules
 *   policy_from.c     who calls
 *   policy_to.c       what is called
 *   policy_values.c   named facts: query, headers, claims
 *   policy_roles.c    roles, and how they become part of a rule
 *   policy_pattern.c  the forms of patterns
 */
#ifndef POSTERN_CONFIG_POLICY_PRIV_H
#define POSTERN_CONFIG_POLICY_PRIV_H

#include <postern/conf.h>

#include "config_priv.h"

#define LEAVE_OUT "leave the key out where it does not matter: an empty list would match nothing"

/* A row of a list of strings whose member has the key's name. */
#define STRINGS(key, type_name, struct_name, ...)                                                  \
    {.name = #key,                                                                                 \
     .type = type_name,                                                                            \
     LIST_AT(struct struct_name, key.items, key.n),                                                \
     .empty_advice = LEAVE_OUT,                                                                    \
     __VA_ARGS__}
#define PRINCIPAL                                                                                  \
    .max = 2049, .check = policy_check_principal,                                                  \
    .type_doc = "SPIFFE ID, `*`, `prefix*`, `*suffix`, or `*` and `**` for segments",              \
    .expected = "a SPIFFE ID, *, or one with a * at its beginning or end"

/* --- policy_pattern.c ------------------------------------------------------------------------- */
enum pattern_kind { PATTERN_EXACT, PATTERN_PREFIX, PATTERN_SUFFIX, PATTERN_ANY, PATTERN_BAD };
/* Where the star stands; *ret_rest is the text without it. */
enum pattern_kind pattern_split(struct str text, struct str *ret_rest);
/* Each reports, and returns false. */
bool pattern_refuse(struct context *c, const struct field *f, const struct node *n,
                    const char *advice, const char *why);
bool pattern_refuse_star(struct context *c, const struct field *f, const struct node *n);
bool pattern_refuse_level(struct context *c, const struct field *f, const struct node *n,
                          const char *what);
/* A text of which any byte but control characters may be part. */
bool pattern_check_text(struct context *c, const struct field *f, const struct node *n);

/* --- policy_from.c, policy_to.c --------------------------------------------------------------- */
bool policy_check_principal(struct context *c, const struct field *f, const struct node *n);
extern const struct table table_policy_from, table_policy_to;

/* --- policy_values.c -------------------------------------------------------------------------- */
extern const struct table table_policy_query, table_policy_header, table_policy_claim;
/* `list` is the node of the key, or NULL. Not of the `not_` lists: no name may stand there twice
 * in the other. */
void policy_check_values(struct context *c, const struct node *list,
                         const struct conf_policy_values *values, bool unique);
#define VALUES(key, struct_name, table_name, ...)                                                  \
    {.name = #key,                                                                                 \
     .type = TYPE_MAP,                                                                             \
     .table = &(table_name),                                                                       \
     LIST_AT(struct struct_name, key.items, key.n),                                                \
     .level = 2,                                                                                   \
     .empty_advice = LEAVE_OUT,                                                                    \
     __VA_ARGS__}

/* --- policy_roles.c --------------------------------------------------------------------------- */
extern const struct table table_policy_role;
/* Makes what the rules' roles say part of their `to`. */
void policy_apply_roles(struct context *c, const struct node *file, struct conf_policy *p);

#endif
