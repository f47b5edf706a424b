/* role_policy_compare: `postern policy lint` and `diff`. */
#include "role_policy.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <postern/policy_tools.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles_priv.h"

enum { FILE_MAX_BYTES = 4 << 20, DIFFERENCES_TOLD = 200 };

/* --- lint --------------------------------------------------------------------------------------
 */
struct lint_files {
    struct conf_proxy *proxy;
    struct conf_mesh *mesh;
};

static void unload(struct lint_files *f)
{
    conf_proxy_free(f->proxy);
    conf_mesh_free(f->mesh);
}

static int load_beside(const char *proxy, const char *gateway, const char *mesh,
                       struct lint_files *ret)
{
    struct conf_diag *diag = conf_diag_new();
    int rc = 0;
    *ret = (struct lint_files){.proxy = NULL};
    if ((proxy != NULL && conf_load_proxy(proxy, diag, &ret->proxy) != 0) ||
        (gateway != NULL && conf_load_gateway(gateway, diag, &ret->proxy) != 0) ||
        (mesh != NULL && conf_load_mesh(mesh, diag, &ret->mesh) != 0)) {
        role_print_diag(diag);
        unload(ret);
        rc = 2;
    }
    conf_diag_free(diag);
    return rc;
}

/* 0: nothing; 1: a doubt or more; 2: not valid, or it is not known whether there is one. */
static int lint_text(const char *path, struct str text, const struct policy_lint_options *o,
                     const struct policy_source *source, bool json)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_diag *doubts = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct buf out = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    int rc = 2;
    if (policy_source_parse(source, path, text, diag, doubts, &conf) != 0) {
        role_print_diag(diag);
    } else {
        struct policy_findings found;
        policy_tell_doubts(doubts);
        policy_lint(conf, conf_policy_is_foreign(text) ? STR_NONE : text, o, &found);
        rc = policy_findings_print(&found, path, json, &out) ? policy_print(&out) : 2;
        for (size_t i = 0; i < found.n && rc != 2; i++) {
            rc = found.items[i].code == POLICY_FINDING_NOT_KNOWN ? 2 : 1;
        }
        policy_findings_deinit(&found);
    }
    buf_reset(&out);
    conf_policy_free(conf);
    conf_diag_free(doubts);
    conf_diag_free(diag);
    return rc;
}

int policy_lint_main(int argc, char **argv)
{
    const char *proxy = NULL;
    const char *gateway = NULL;
    const char *mesh = NULL;
    const char *for_whom = NULL;
    bool json = false;
    const struct role_text texts[] = {
        {"--proxy", &proxy}, {"--gateway", &gateway}, {"--mesh", &mesh}, {"--for", &for_whom}};
    int first = 1;
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "--json") == 0) {
            json = true;
        } else if (!role_take_text(texts, 4, argc, argv, &first)) {
            return policy_usage();
        }
    }
    struct lint_files beside;
    if (first == argc || (json && argc - first > 1) || (proxy != NULL && gateway != NULL)) {
        return policy_usage();
    }
    struct policy_source source;
    int rc = load_beside(proxy, gateway, mesh, &beside);
    if (rc != 0) {
        return rc;
    }
    rc = policy_source_for(for_whom, &source);
    if (rc != 0) {
        unload(&beside);
        return rc;
    }
    const struct policy_lint_options o = {
        .now_s = os_wall_s(), .proxy = beside.proxy, .mesh = beside.mesh};
    for (int i = first; i < argc; i++) {
        mem_autofree char *text = NULL;
        size_t len = 0;
        struct err err = ERR_INIT;
        int r = os_read_file(argv[i], FILE_MAX_BYTES, false, &text, &len, &err) != 0
                    ? role_say("policy lint", &err, 2)
                    : lint_text(argv[i], (struct str){text, len}, &o, &source, json);
        rc = r > rc ? r : rc;
    }
    policy_source_deinit(&source);
    unload(&beside);
    return rc;
}

/* --- diff --------------------------------------------------------------------------------------
 */
int policy_diff_main(int argc, char **argv)
{
    bool json = false;
    const char *for_whom = NULL;
    int first = policy_take_json_for(argc, argv, &json, &for_whom);
    struct role_policy before, now;
    if (argc - first != 2) {
        return policy_usage();
    }
    if (policy_load(argv[first], for_whom, &before) != 0) {
        return 2;
    }
    int rc = policy_load(argv[first + 1], for_whom, &now);
    if (rc == 0) {
        const struct policy_diff_options o = {
            .now_s = os_wall_s(), .max = DIFFERENCES_TOLD, .json = json};
        struct buf out = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
        struct err err = ERR_INIT;
        size_t n = 0;
        if (policy_diff(before.conf, now.conf, &o, &out, &n, &err) != 0) {
            rc = role_say("policy diff", &err, 2);
        } else {
            rc = policy_print(&out);
            rc = rc == 0 && n > 0 ? 1 : rc;
        }
        buf_reset(&out);
    }
    policy_unload(&before);
    policy_unload(&now);
    return rc;
}
