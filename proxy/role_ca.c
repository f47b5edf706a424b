/* ca: the authorities of this node's agent, and their exchange (docs/authority.md). */
#include "roles_priv.h"

#include <jansson.h>
#include <postern/agent_control.h>
#include <postern/agent_ipc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *config, *control; /* how to find the control socket */
    const char *id;               /* NULL: none named */
    enum agent_ca_verb verb;
    bool jwt, force, json;
};

static int usage(void)
{
    fprintf(stderr,
            "usage: postern ca show|prepare|activate|taint|retire [OPTIONS] [ID]\n"
            "  --x509, --jwt   whose: certificates' (the default) or tokens'\n"
            "  --force         retire: although SVIDs under it are in use\n"
            "  --json          the answer as it is\n"
            "  --config FILE   the agent's file, which says where its control socket is\n"
            "  --control PATH  that socket itself (default %s)\n",
            AGENT_CONTROL_DEFAULT);
    return 2;
}

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

static bool parse(int argc, char **argv, struct options *o)
{
    *o = (struct options){.id = NULL};
    if (argc < 2 || !parse_verb(argv[1], &o->verb)) {
        return false;
    }
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--x509") == 0) {
            o->jwt = false;
        } else if (strcmp(argv[i], "--jwt") == 0) {
            o->jwt = true;
        } else if (strcmp(argv[i], "--force") == 0 && o->verb == AGENT_CA_RETIRE) {
            o->force = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            o->json = true;
        } else if (strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
            o->config = argv[++i];
        } else if (strcmp(argv[i], "--control") == 0 && i + 1 < argc) {
            o->control = argv[++i];
        } else if (argv[i][0] != '-' && o->id == NULL &&
                   (o->verb == AGENT_CA_TAINT || o->verb == AGENT_CA_RETIRE)) {
            o->id = argv[i];
        } else {
            return false;
        }
    }
    return true;
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
    struct options o;
    char *path = NULL;
    int status;

    if (!parse(argc, argv, &o)) {
        return usage();
    }
    agent_control_init(&request, AGENT_CONTROL_CA);
    request.number = o.verb;
    request.flags = (o.jwt ? (uint32_t)AGENT_CONTROL_CA_JWT : 0) |
                    (o.force ? (uint32_t)AGENT_CONTROL_CA_FORCE : 0);
    if (!agent_control_put(&request, 0, str_of(o.id))) {
        fprintf(stderr, "postern ca: '%.80s' is no authority's id\n", o.id);
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
