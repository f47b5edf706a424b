/* ca: the authorities of this node's agent, and their exchange (docs/authority.md). */
#include "role_options.h"
#include "roles_priv.h"

#include <jansson.h>
#include <postern/agent_control.h>
#include <postern/agent_ipc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *config, *control; /* how to find the control socket */
    bool x509, jwt, force, json;
};

static const struct role_option OPTIONS[] = {
    ROLE_FLAG("--x509", struct options, x509, "the authorities of certificates (the default)"),
    ROLE_FLAG("--jwt", struct options, jwt, "those of tokens"),
    ROLE_FLAG("--force", struct options, force, "retire: although SVIDs under it are in use"),
    ROLE_FLAG("--json", struct options, json, "the answer as it is"),
    ROLE_TEXT("--config", "FILE", struct options, config,
              "the agent's file, which says where its control socket is"),
    ROLE_TEXT("--control", "PATH", struct options, control,
              "that socket itself (default " AGENT_CONTROL_DEFAULT ")"),
};
static const struct role_use USE = {
    .command = "ca",
    .uses = ROLE_USES("ca show|prepare|activate [OPTIONS]", "ca taint|retire [OPTIONS] [ID]"),
    ROLE_OPTIONS(OPTIONS),
    .max_words = 2,
};

static bool parse_verb(const char *word, enum agent_ca_verb *ret)
{
    static const char *const WORDS[AGENT_N_CA_VERBS] = {
        [AGENT_CA_SHOW] = "show",         [AGENT_CA_PREPARE] = "prepare",
        [AGENT_CA_ACTIVATE] = "activate", [AGENT_CA_TAINT] = "taint",
        [AGENT_CA_RETIRE] = "retire",
    };

    for (size_t i = 0; i < AGENT_N_CA_VERBS; i++) {
        if (strcmp(word, WORDS[i]) == 0) {
            *ret = (enum agent_ca_verb)i;
            return true;
        }
    }
    return false;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL ? text : "-";
}

static int print_people(struct buf *answer)
{
    json_t *root = json_loadb((const char *)buf_head(answer), buf_len(answer), 0, NULL);
    const json_t *a;
    size_t i;

    if (root == NULL) {
        fprintf(stderr, "postern ca: the agent's answer is no JSON\n");
        return 1;
    }
    printf("%-5s %-9s %-20s %-20s %6s  %s\n", "kind", "state", "since", "not after", "in use",
           "id");
    json_array_foreach(json_object_get(root, "authorities"), i, a)
    {
        printf("%-5s %-9s %-20s %-20s %6lld  %s\n", text_of(a, "kind"), text_of(a, "state"),
               text_of(a, "since"), text_of(a, "not_after"),
               (long long)json_integer_value(json_object_get(a, "svids_in_use")), text_of(a, "id"));
    }
    json_array_foreach(json_object_get(root, "schedule"), i, a)
    {
        printf("next: %s, %s at %s\n", text_of(a, "kind"), text_of(a, "step"), text_of(a, "at"));
    }
    json_decref(root);
    return 0;
}

int ca_main(int argc, char **argv)
{
    struct agent_control_request request;
    struct buf answer = BUF_INIT(AGENT_CONTROL_DOCUMENT_MAX);
    struct options o = {.config = NULL};
    enum agent_ca_verb verb;
    char *path = NULL;
    int status;

    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    if (argc < 2 || !parse_verb(argv[1], &verb)) {
        return role_misuse(&USE, "expected what to do");
    }
    if ((o.x509 && o.jwt) || (o.force && verb != AGENT_CA_RETIRE) ||
        (argc > 2 && verb != AGENT_CA_TAINT && verb != AGENT_CA_RETIRE)) {
        return role_misuse(&USE, "that does not go together");
    }
    agent_control_init(&request, AGENT_CONTROL_CA);
    request.number = verb;
    request.flags = (o.jwt ? (uint32_t)AGENT_CONTROL_CA_JWT : 0) |
                    (o.force ? (uint32_t)AGENT_CONTROL_CA_FORCE : 0);
    if (!agent_control_put(&request, 0, str_of(argc > 2 ? argv[2] : NULL))) {
        fprintf(stderr, "postern ca: '%.80s' is no authority's id\n", argv[2]);
        return 2;
    }
    if (role_control_path(o.config, o.control, &path) == -1) {
        return 2;
    }
    status = role_control_ask(path, &request, &answer);
    if (status == 0 && o.json) {
        status = fwrite(buf_head(&answer), 1, buf_len(&answer), stdout) == buf_len(&answer) ? 0 : 1;
    } else if (status == 0) {
        status = print_people(&answer);
    }
    free(path);
    buf_reset(&answer);
    return status;
}
