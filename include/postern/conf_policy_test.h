/*
 * conf_policy_test: a PolicyTest file: what a policy is expected to say. The rules of conf.h hold.
 */
#ifndef POSTERN_CONF_POLICY_TEST_H
#define POSTERN_CONF_POLICY_TEST_H

#include <postern/conf.h>

/* A header or a claim; the same name may stand several times. */
struct conf_policy_said {
    char *name, *value;
};

/* Texts NULL: not there. Without method, path and grpc it is a connection. */
struct conf_policy_request {
    char *peer, *target;
    struct conf_sockaddr source;
    uint16_t port;
    char *method, *host, *path; /* path: as a client writes it, with its query */
    char *grpc;                 /* Service/Method: method, path and content-type of that */
    struct conf_policy_said *headers;
    size_t n_headers;
    struct conf_policy_said *claims;
    size_t n_claims;
    int64_t time_s; /* 0: now */
};

enum conf_policy_expect { CONF_EXPECT_ALLOW, CONF_EXPECT_DENY };

struct conf_policy_case {
    char *name;
    unsigned line;
    struct conf_policy_request request;
    enum conf_policy_expect expect;
    char *rule;   /* that decides; NULL: any or none */
    char *audit;  /* an AUDIT rule that marks it first; NULL: it is not asked */
    char *shadow; /* a dry-run rule that would turn it; NULL: it is not asked */
};

struct conf_policy_test {
    char *path;
    char *policy_path; /* NULL: the command line says it */
    struct conf_policy_case *cases;
    size_t n_cases;
};

int conf_load_policy_test(const char *path, struct conf_diag *diag, struct conf_policy_test **ret);
int conf_parse_policy_test(const char *name, const char *text, size_t len, struct conf_diag *diag,
                           struct conf_policy_test **ret);
struct conf_policy_test *conf_policy_test_free(struct conf_policy_test *c);

#endif
