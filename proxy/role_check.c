/* check: says what is wrong with configuration files, and runs nothing. */
#include "role_options.h"
#include "roles_priv.h"

#include <limits.h>
#include <postern/conf.h>
#include <postern/policy.h>
#include <postern/snapshot.h>
#include <stdio.h>
#include <string.h>

/* What a policy's text does not show: whether it compiles. */
static int check_policy(const char *path)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct err err = ERR_INIT;
    char text[1200];
    int rc = 0;
    if (conf_load_policy(path, diag, &conf) == 0) {
        struct policy *p = policy_new(conf, &err);
        if (p == NULL) {
            fprintf(stderr, "%s\n", err_text(&err, text, sizeof(text)));
            rc = 2;
        }
        policy_free(p);
    }
    conf_policy_free(conf);
    conf_diag_free(diag);
    return rc;
}

/* Of a file that is sound by itself: its own policy, or the one that it names. */
static int check_meaning(const char *path, const char *kind)
{
    if (strcmp(kind, "Policy") == 0) {
        return check_policy(path);
    }
    bool gateway = strcmp(kind, "Gateway") == 0;
    if (!gateway && strcmp(kind, "Proxy") != 0) {
        return 0;
    }
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
        if (conf->policy_path != NULL && check_policy(conf->policy_path) != 0) {
            rc = 2;
        }
    }
    conf_proxy_free(conf);
    conf_diag_free(diag);
    return rc;
}

/* 0 or 2; all that was found goes to standard error. */
static int check_file(const char *path)
{
    struct conf_diag *diag = conf_diag_new();
    struct buf said = BUF_INIT(1024 * 1024);
    const char *kind = NULL;
    int rc = 0;
    if (conf_check(path, diag, &kind) == 0) {
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
