/*
 * policy_rows: policies and questions as table rows, for tests. Whatever is wrong with a row fails
 * the test that runs.
 */
#ifndef TESTS_POLICY_ROWS_H
#define TESTS_POLICY_ROWS_H

#include <postern/policy.h>

enum { LIST_MAX = 6, NAMED_MAX = 4, NAMED_VALUES = 3 };

/* One element of a list of named values; values end at NULL. */
struct row_value {
    const char *name; /* NULL: the list ends */
    const char *values[NAMED_VALUES];
    bool present;
};

/* One rule as a table row: lists end at NULL (or port 0). */
struct row {
    const char *name;
    enum conf_action action;
    const char *target[LIST_MAX];
    bool from, to;
    const char *principals[LIST_MAX], *not_principals[LIST_MAX];
    const char *domains[LIST_MAX], *not_domains[LIST_MAX];
    const char *blocks[LIST_MAX], *not_blocks[LIST_MAX];
    uint16_t ports[LIST_MAX], not_ports[LIST_MAX];
    const char *methods[LIST_MAX], *not_methods[LIST_MAX];
    const char *hosts[LIST_MAX], *not_hosts[LIST_MAX];
    const char *paths[LIST_MAX], *not_paths[LIST_MAX];
    const char *namespaces[LIST_MAX], *not_namespaces[LIST_MAX];
    const char *accounts[LIST_MAX], *not_accounts[LIST_MAX];
    const char *grpc[LIST_MAX], *not_grpc[LIST_MAX];
    struct row_value claims[NAMED_MAX], not_claims[NAMED_MAX];
    struct row_value query[NAMED_MAX], not_query[NAMED_MAX];
    struct row_value headers[NAMED_MAX], not_headers[NAMED_MAX];
    enum conf_rule_mode mode;
    int64_t expires_s;
};

/* Rows of one name, one after the other, are one rule: each adds its from and its to entry. Freed
 * with policy_rows_free. */
struct conf_policy *policy_rows_conf(const struct row *rows, size_t n);
void policy_rows_free(struct conf_policy *c);

#define ORDERS "spiffe://a.b/orders"
#define PEER "spiffe://a.b/ns/pay/sa/x"

struct question {
    const char *peer, *source, *method, *host, *path; /* method NULL: a connection */
    uint16_t port;                                    /* 0: 8080 */
    const char *target;                               /* NULL: ORDERS */
    const char *query;                                /* NULL: not known */
    bool grpc;
    const struct policy_headers *headers;
    const struct policy_claims *claims;
    int64_t now_s;
};

/* `source` is room for the address that the query points at. */
struct policy_query policy_rows_query(const struct question *q, struct sockaddr_storage *source);
void policy_rows_same_verdict(const struct policy_verdict *a, const struct policy_verdict *b);
/* calloc and strdup that end the test. */
void *policy_rows_must(void *p) __attribute__((returns_nonnull));

#endif
