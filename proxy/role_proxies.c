/* role_proxies: `postern agent proxies`: which proxy runs what of the agent's state. */
#include "role_options.h"
#include "roles_priv.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

struct options {
    const char *config, *socket;
    bool json;
};

static const struct role_option OPTIONS[] = {
    ROLE_TEXT("--config", "FILE", struct options, config,
              "the agent's file, which names its admin socket"),
    ROLE_TEXT("--socket", "PATH", struct options, socket,
              "the admin socket itself (default as of `postern status`)"),
    ROLE_FLAG("--json", struct options, json, "the list as JSON"),
};
static const struct role_use USE = {
    .command = "agent proxies",
    .uses = ROLE_USES("agent proxies [--config FILE] [--socket PATH] [--json]"),
    ROLE_OPTIONS(OPTIONS),
};

static const char *text_of(const json_t *o, const char *key, const char *none)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : none;
}

static long long number_of(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static void print_proxy(const json_t *p, long long generation, long long deny_version)
{
    bool newest =
        number_of(p, "generation") == generation && number_of(p, "deny_version") == deny_version;

    printf("%s\n", text_of(p, "identity", "(not told yet)"));
    printf("    %s, pid %lld, uid %lld, connected since %s\n", text_of(p, "name", "(no name)"),
           number_of(p, "pid"), number_of(p, "uid"), text_of(p, "connected", "?"));
    printf("    runs generation %lld, deny list %lld%s\n", number_of(p, "generation"),
           number_of(p, "deny_version"), newest ? "" : " (not the newest)");
    if (text_of(p, "error", NULL) != NULL) {
        printf("    refused generation %lld: %s\n", number_of(p, "refused_generation"),
               text_of(p, "error", ""));
    }
}

static int print(const char *text, size_t len)
{
    json_error_t e;
    json_t *o = json_loadb(text, len, 0, &e);
    const json_t *list = json_object_get(o, "proxies");

    if (!json_is_array(list)) {
        fprintf(stderr, "postern: the answer is no list of proxies\n");
        json_decref(o);
        return 1;
    }
    long long generation = number_of(o, "generation"), deny = number_of(o, "deny_version");
    printf("generation %lld, deny list %lld, %zu %s\n", generation, deny, json_array_size(list),
           json_array_size(list) == 1 ? "proxy" : "proxies");
    for (size_t i = 0; i < json_array_size(list); i++) {
        print_proxy(json_array_get(list, i), generation, deny);
    }
    json_decref(o);
    return 0;
}

int agent_proxies_main(int argc, char **argv)
{
    struct options o = {.config = NULL};
    struct buf out = BUF_INIT(ROLE_ANSWER_MAX);
    int status;

    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    status = role_admin_ask(o.config, o.socket, "proxies", &out);
    if (status == 0 && o.json) {
        printf("%.*s", (int)buf_len(&out), (const char *)buf_head(&out));
    } else if (status == 0) {
        status = print((const char *)buf_head(&out), buf_len(&out));
    }
    buf_reset(&out);
    return status;
}
