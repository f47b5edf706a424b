/* status: what a running proxy or agent says about itself, for people. */
#include "role_options.h"
#include "roles_priv.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_value(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        printf("%s\n", json_string_value(v));
        break;
    case JSON_INTEGER:
        printf("%lld\n", (long long)json_integer_value(v));
        break;
    case JSON_REAL:
        printf("%g\n", json_real_value(v));
        break;
    case JSON_TRUE:
        printf("yes\n");
        break;
    case JSON_FALSE:
        printf("no\n");
        break;
    case JSON_NULL:
        printf("-\n");
        break;
    case JSON_OBJECT:
    case JSON_ARRAY:
        break;
    }
}

/* Documents are ours and flat: three levels at most are printed. */
static void print_tree(json_t *v, int depth)
{
    const char *key;
    json_t *value;
    size_t i;
    if (depth > 3) {
        return;
    }
    if (json_is_array(v)) {
        json_array_foreach(v, i, value)
        {
            bool nested = json_is_object(value) || json_is_array(value);
            printf("%*s-%s", depth * 2, "", nested ? "\n" : " ");
            if (nested) {
                print_tree(value, depth + 1);
            } else {
                print_value(value);
            }
        }
        return;
    }
    json_object_foreach(v, key, value)
    {
        printf("%*s%-*s ", depth * 2, "", 18, key);
        if (json_is_object(value) || json_is_array(value)) {
            printf("\n");
            print_tree(value, depth + 1);
        } else {
            print_value(value);
        }
    }
}

struct options {
    const char *config, *socket;
    bool json, hardening;
};

static const struct role_option OPTIONS[] = {
    ROLE_TEXT("--config", "FILE", struct options, config,
              "the agent's or proxy's file, which names its admin socket"),
    ROLE_TEXT("--socket", "PATH", struct options, socket,
              "the admin socket itself (default $POSTERN_ADMIN_SOCKET, or the\n"
              "only /run/postern/*admin.sock)"),
    ROLE_FLAG("--hardening", struct options, hardening,
              "only what the process may still do, or each process of an agent"),
    ROLE_FLAG("--json", struct options, json, "the document as it came"),
};
static const struct role_use USE = {
    .command = "status",
    .uses = ROLE_USES("status [--config FILE] [--socket PATH] [--hardening] [--json]"),
    ROLE_OPTIONS(OPTIONS),
};

static int print_answer(const struct buf *out, bool raw, bool only_hardening)
{
    json_t *doc = raw && !only_hardening ? NULL
                                         : json_loadb((const char *)buf_head(out), buf_len(out),
                                                      JSON_REJECT_DUPLICATES, NULL);
    json_t *shown = doc;
    if (only_hardening) {
        shown = json_object_get(doc, "hardening");
        shown = shown != NULL ? shown : json_object_get(doc, "processes"); /* an agent's */
        if (shown == NULL) {
            fprintf(stderr, "postern: its answer says nothing about hardening\n");
            json_decref(doc);
            return 1;
        }
    }
    if (raw && shown != NULL) {
        char *text = json_dumps(shown, JSON_INDENT(2));
        printf("%s\n", text != NULL ? text : "");
        free(text);
    } else if (shown != NULL) {
        print_tree(shown, 0);
    } else {
        fwrite(buf_head(out), 1, buf_len(out), stdout);
    }
    json_decref(doc);
    return 0;
}

int status_main(int argc, char **argv)
{
    struct options o = {.config = NULL};
    int status;
    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    struct buf out = BUF_INIT(ROLE_ANSWER_MAX);
    status = role_admin_ask(o.config, o.socket, "status", &out);
    if (status != 0) {
        return status;
    }
    status = print_answer(&out, o.json, o.hardening);
    buf_reset(&out);
    return status;
}
