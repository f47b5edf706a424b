/*
 * The tables of `after` and `verify`, for the output of a Rotate file that has them:
 *
 *   {.name = "after", .type = TYPE_MAP, .table = &table_action,
 *    LIST_AT(struct conf_output, after, n_after), ...}        and after_check in its check
 *   {.name = "verify", .type = TYPE_MAP, .table = &table_verify, .scalar = verify_scalar,
 *    AT(struct conf_output, verify), ...}
 */
#ifndef POSTERN_AFTER_PRIV_H
#define POSTERN_AFTER_PRIV_H

#include <postern/conf_after.h>

#include "config_priv.h"

extern const struct table table_action; /* of struct conf_after */
extern const struct table table_verify; /* of struct conf_verify */
/* A URL alone in the place of the mapping; value is the struct conf_verify. */
bool verify_scalar(struct context *c, const struct field *f, const struct node *n, void *value);
/* What no single action can say. */
void after_check(struct context *c, const struct node *list, size_t n_actions);

/* --- between after.c and after_http.c --- */
extern const struct table table_after_http; /* `http` of an action */
/* The check of a field with a URL. */
bool after_check_url(struct context *c, const struct field *f, const struct node *n);
/* Bytes, each word with its NUL. */
size_t after_words_size(const struct conf_words *w);

#endif
