/* role_policy_source: a policy for `postern policy COMMAND`, out of a file that is ours, or Istio's
 * and Kubernetes' and read for somebody. */
#include "role_policy.h"

#include "roles_priv.h"

#include <stdio.h>
#include <string.h>

static bool load_for(const char *path, const char *kind, struct conf_diag *diag,
                     struct policy_source *ret)
{
    struct conf_proxy *proxy = NULL;
    struct conf_agent *agent = NULL;
    bool ok = false;
    if (strcmp(kind, "Agent") == 0) {
        ok = conf_load_agent(path, diag, &agent) == 0;
    } else {
        bool gateway = strcmp(kind, "Gateway") == 0;
        ok = (gateway ? conf_load_gateway : conf_load_proxy)(path, diag, &proxy) == 0;
    }
    if (agent != NULL) {
        policy_source_of_agent(agent, ret);
    } else if (proxy != NULL) {
        policy_source_of_proxy(proxy, ret);
    }
    conf_agent_free(agent);
    conf_proxy_free(proxy);
    return ok;
}

int policy_source_for(const char *path, struct policy_source *ret)
{
    struct conf_diag *diag = conf_diag_new();
    const char *kind = "Proxy"; /* whose reader says what else there is */
    int rc = 0;
    *ret = (struct policy_source){.texts = NULL};
    if (path != NULL && ((conf_check(path, diag, &kind) == 0 && strcmp(kind, "Policy") == 0) ||
                         conf_diag_count(diag) > 0 || !load_for(path, kind, diag, ret))) {
        role_print_diag(diag);
        if (conf_diag_count(diag) == 0) {
            fprintf(stderr, "postern: %s: --for is a Proxy, Gateway or Agent file\n", path);
        }
        rc = 2;
    }
    conf_diag_free(diag);
    return rc;
}

int policy_take_json_for(int argc, char **argv, bool *json, const char **for_whom)
{
    const struct role_text texts[] = {{"--for", for_whom}};
    int i = 1;
    for (; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            *json = true;
        } else if (!role_take_text(texts, 1, argc, argv, &i)) {
            break;
        }
    }
    return i;
}

void policy_tell_doubts(const struct conf_diag *doubts)
{
    char text[1200];
    for (size_t i = 0; i < conf_diag_count(doubts); i++) {
        fprintf(stderr, "warning: %s\n", err_text(conf_diag_get(doubts, i), text, sizeof(text)));
    }
}

static int compile(const char *path, struct role_policy *p)
{
    struct err err = ERR_INIT;
    p->policy = policy_new(p->conf, &err);
    if (p->policy != NULL) {
        return 0;
    }
    if (err.where[0] == '\0') {
        err_where(&err, "%s", path);
    }
    conf_policy_free(p->conf);
    p->conf = NULL;
    return role_say("policy", &err, 2);
}

int policy_load(const char *path, const char *for_whom, struct role_policy *ret)
{
    struct policy_source source;
    *ret = (struct role_policy){.conf = NULL};
    if (policy_source_for(for_whom, &source) != 0) {
        return 2;
    }
    struct conf_diag *diag = conf_diag_new();
    struct conf_diag *doubts = conf_diag_new();
    int rc = 0;
    if (policy_source_load(&source, path, diag, doubts, &ret->conf) != 0) {
        role_print_diag(diag);
        rc = 2;
    } else {
        policy_tell_doubts(doubts);
        rc = compile(path, ret);
    }
    policy_source_deinit(&source);
    conf_diag_free(diag);
    conf_diag_free(doubts);
    return rc;
}

void policy_unload(struct role_policy *p)
{
    policy_free(p->policy);
    conf_policy_free(p->conf);
    *p = (struct role_policy){.conf = NULL};
}
