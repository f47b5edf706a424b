/* check: says what is wrong with configuration files, and runs nothing. */
#include "role_options.h"
#include "roles_priv.h"

#include <limits.h>
#include <postern/conf.h>
#include <postern/conf_policy_test.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/policy.h>
#include <postern/policy_source.h>
#include <postern/snapshot.h>
#include <stdio.h>
#include <string.h>

/* A policy that is read for somebody: whether it compiles too. NULL: there is none. */
static int check_policy(const char *path, const struct policy_source *source)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_diag *doubts = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct policy *p = NULL;
    struct err err = ERR_INIT;
    char text[1200];
    int rc = 0;
    if (path != NULL && policy_source_load(source, path, diag, doubts, &conf) != 0) {
        role_print_diag(diag);
        rc = 2;
    } else if (path != NULL) {
        for (size_t i = 0; i < conf_diag_count(doubts); i++) {
            fprintf(stderr, "warning: %s\n",
                    err_text(conf_diag_get(doubts, i), text, sizeof(text)));
        }
        p = policy_new(conf, &err);
        rc = p != NULL ? 0 : 2;
        if (rc != 0) {
            fprintf(stderr, "%s\n", err_text(&err, text, sizeof(text)));
        }
    }
    policy_free(p);
    conf_policy_free(conf);
    conf_diag_free(doubts);
    conf_diag_free(diag);
    return rc;
}

/* As a person reads it, who is nobody's workload. */
static int check_lone_policy(const char *path)
{
    const struct policy_source source = {.texts = NULL};
    return check_policy(path, &source);
}

static int check_dataplane(const char *path, bool gateway)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_proxy *conf = NULL;
    int rc = 0;
    struct err err = ERR_INIT;
    if ((gateway ? conf_load_gateway : conf_load_proxy)(path, diag, &conf) == 0) {
        char text[1024];
        if (snapshot_tls_check(conf, &err) == -1) {
            fprintf(stderr, "%s: %s\n", path, err_text(&err, text, sizeof(text)));
            rc = 2;
        }
        struct claims_keys *keys = NULL;
        err = (struct err)ERR_INIT;
        if (claims_keys_load(&conf->jwt, &keys, &err) == -1) {
            fprintf(stderr, "%s: %s\n", path, err_text(&err, text, sizeof(text)));
            rc = 2;
        }
        claims_keys_unref(keys);
        struct policy_source source;
        policy_source_of_proxy(conf, &source);
        rc = check_policy(conf->policy_path, &source) != 0 ? 2 : rc;
        policy_source_deinit(&source);
    }
    conf_proxy_free(conf);
    conf_diag_free(diag);
    return rc;
}

static int check_agent(const char *path)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_agent *conf = NULL;
    int rc = 0;
    if (conf_load_agent(path, diag, &conf) == 0) {
        struct policy_source source;
        policy_source_of_agent(conf, &source);
        rc = check_policy(conf->state.policy_path, &source);
        policy_source_deinit(&source);
    }
    conf_agent_free(conf);
    conf_diag_free(diag);
    return rc;
}

static int check_test(const char *path)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy_test *conf = NULL;
    int rc = 0;
    if (conf_load_policy_test(path, diag, &conf) == 0 && conf->policy_path != NULL) {
        rc = check_lone_policy(conf->policy_path);
    }
    conf_policy_test_free(conf);
    conf_diag_free(diag);
    return rc;
}

/* Of a file that is sound by itself: its own policy, or the one that it names. */
static int check_meaning(const char *path, const char *kind)
{
    if (strcmp(kind, "Policy") == 0) {
        return check_lone_policy(path);
    }
    if (strcmp(kind, "Agent") == 0) {
        return check_agent(path);
    }
    if (strcmp(kind, "PolicyTest") == 0) {
        return check_test(path);
    }
    bool gateway = strcmp(kind, "Gateway") == 0;
    return gateway || strcmp(kind, "Proxy") == 0 ? check_dataplane(path, gateway) : 0;
}

/* Istio's and Kubernetes' have no kind of ours. */
static bool is_foreign(const char *path)
{
    mem_autofree char *text = NULL;
    size_t len = 0;
    struct err err = ERR_INIT;
    return os_read_file(path, CONF_POLICY_FILE_MAX, false, &text, &len, &err) == 0 &&
           conf_policy_is_foreign((struct str){text, len});
}

/* 0 or 2; all that was found goes to standard error. */
static int check_file(const char *path)
{
    struct conf_diag *diag = conf_diag_new();
    struct buf said = BUF_INIT(1024 * 1024);
    const char *kind = "policies of Istio or Kubernetes";
    int rc = 0;
    if (is_foreign(path)) {
        rc = check_lone_policy(path);
    } else if (conf_check(path, diag, &kind) == 0) {
        rc = check_meaning(path, kind);
    } else {
        rc = 2;
    }
    if (rc == 0) {
        printf("%s: ok (%s, level %d)\n", path, kind, CONF_LEVEL);
    } else {
        (void)conf_diag_print(diag, &said);
    }
    if (buf_len(&said) > 0) {
        (void)fwrite(buf_head(&said), 1, buf_len(&said), stderr);
    }
    buf_reset(&said);
    conf_diag_free(diag);
    return rc;
}

int role_print_schema(const char *kind)
{
    struct buf out = BUF_INIT(4 * 1024 * 1024);
    int rc = 0;
    if (conf_json_schema(kind, &out)) {
        (void)fwrite(buf_head(&out), 1, buf_len(&out), stdout);
    } else {
        fprintf(stderr, "postern: there is no kind '%s', only", kind);
        for (const char *const *k = conf_kinds(); *k != NULL; k++) {
            fprintf(stderr, " %s", *k);
        }
        fprintf(stderr, "\n");
        rc = 2;
    }
    buf_reset(&out);
    return rc;
}

struct options {
    const char *schema;
};

static const struct role_option OPTIONS[] = {
    ROLE_TEXT("--schema", "KIND", struct options, schema,
              "print the JSON Schema of a kind of file, such as Policy"),
};
static const struct role_use USE = {
    .command = "check",
    .uses = ROLE_USES("check FILE...", "check --schema KIND"),
    ROLE_OPTIONS(OPTIONS),
    .max_words = INT_MAX,
};

int check_main(int argc, char **argv)
{
    struct options o = {.schema = NULL};
    int status;
    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    if ((argc > 1) == (o.schema != NULL)) {
        return role_misuse(&USE, "expected files, or a kind");
    }
    if (o.schema != NULL) {
        return role_print_schema(o.schema);
    }
    int rc = 0;
    for (int i = 1; i < argc; i++) {
        rc |= check_file(argv[i]);
    }
    return rc;
}
