/* role_quarantine: `postern quarantine add|remove|list`: what this node issues to, and lets in, no
 * more. */
#include "role_options.h"
#include "roles_priv.h"

#include <jansson.h>
#include <postern/agent_control.h>
#include <postern/journal.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/quarantine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERIALS_MAX = QUARANTINE_ITEMS_MAX * 64 };

struct options {
    const char *verb, *subject, *reason, *config, *control;
    uint64_t for_s;
    bool json;
};

static bool take_for(void *options, const char *text)
{
    struct options *o = options;

    return role_take_time(text, &o->for_s);
}

static const struct role_option OPTIONS[] = {
    ROLE_TAKE("--for", "TIME", take_for,
              "until then, such as 30m, 2h or 7d; without it until removed"),
    ROLE_TEXT("--reason", "TEXT", struct options, reason, "why, for the record"),
    ROLE_TEXT("--config", "FILE", struct options, config,
              "the agent's file, to find its control socket"),
    ROLE_TEXT("--control", "PATH", struct options, control,
              "the control socket (" AGENT_CONTROL_DEFAULT ")"),
    ROLE_FLAG("--json", struct options, json, "the list as JSON"),
};
static const struct role_use USE = {
    .command = "quarantine",
    .uses = ROLE_USES("quarantine add [--for TIME] [--reason TEXT] [OPTIONS] SUBJECT",
                      "quarantine remove [OPTIONS] SUBJECT", "quarantine list [OPTIONS]"),
    .about = "SUBJECT: spiffe://..., serial:HEX, or the digest of a container image: sha256:HEX\n",
    ROLE_OPTIONS(OPTIONS),
    .max_words = 2,
};

/* --- showing ---------------------------------------------------------------------------------- */
static const char *text_of(const json_t *item, const char *key)
{
    const char *s = json_string_value(json_object_get(item, key));

    return s != NULL ? s : "";
}

static void print_item(const json_t *item)
{
    json_int_t serials = json_integer_value(json_object_get(item, "serials"));
    const char *until = text_of(item, "until");

    printf("%-12s %s\n", text_of(item, "kind"), text_of(item, "subject"));
    printf("             since %s, %s%s", text_of(item, "added"),
           until[0] != '\0' ? "until " : "until it is removed", until);
    if (serials > 0) {
        printf(", with %lld certificate%s that the journal has", (long long)serials,
               serials == 1 ? "" : "s");
    }
    if (text_of(item, "reason")[0] != '\0') {
        printf(": %s", text_of(item, "reason"));
    }
    printf("\n");
}

static int show(const struct options *o, const struct buf *out)
{
    json_t *doc = json_loadb((const char *)buf_head(out), buf_len(out), 0, NULL);
    const json_t *items = json_object_get(doc, "items");
    size_t i;
    json_t *item;

    if (o->json || !json_is_array(items)) {
        fwrite(buf_head(out), 1, buf_len(out), stdout);
    } else {
        json_array_foreach(items, i, item)
        {
            print_item(item);
        }
        printf("%zu quarantined, on this node only (version %lld)\n", json_array_size(items),
               (long long)json_integer_value(json_object_get(doc, "version")));
    }
    json_decref(doc);
    return 0;
}

/* --- asking ----------------------------------------------------------------------------------- */
static int prepare(const struct options *o, struct agent_control_request *r)
{
    enum quarantine_kind kind;
    char text[QUARANTINE_TEXT_MAX + 1], line[1200];
    struct err err = ERR_INIT;

    if (strcmp(o->verb, "list") == 0) {
        if (o->subject != NULL || o->reason != NULL || o->for_s != 0) {
            return role_usage(&USE);
        }
        agent_control_init(r, AGENT_CONTROL_QUARANTINE_LIST);
        return 0;
    }
    if (o->subject == NULL) {
        return role_usage(&USE);
    }
    if (strcmp(o->verb, "add") == 0) {
        agent_control_init(r, AGENT_CONTROL_QUARANTINE_ADD);
        r->number = o->for_s;
        if (!agent_control_put(r, 1, str_of(o->reason))) {
            fprintf(stderr, "postern: the reason is longer than %d bytes\n", QUARANTINE_REASON_MAX);
            return 2;
        }
    } else if (strcmp(o->verb, "remove") == 0 && o->reason == NULL && o->for_s == 0) {
        agent_control_init(r, AGENT_CONTROL_QUARANTINE_REMOVE);
    } else {
        return role_usage(&USE);
    }
    if (quarantine_subject(str_of(o->subject), &kind, text, &err) == -1 ||
        !agent_control_put(r, 0, str_of(o->subject))) {
        fprintf(stderr, "postern: %s\n", err_text(&err, line, sizeof(line)));
        return 2;
    }
    return 0;
}

/* --- certificates of an image ----------------------------------------------------------------- */
/* As many of the list as one request takes; returns what is left of it. */
static struct str fill(struct agent_control_request *r, const char *digest, struct str list)
{
    agent_control_init(r, AGENT_CONTROL_QUARANTINE_SERIALS);
    POSTERN_ASSERT(agent_control_put(r, 0, str_of(digest)));
    for (size_t i = 1; i < AGENT_CONTROL_ARGS_MAX && list.n > 0; i++) {
        size_t n = list.n < AGENT_CONTROL_ARG_MAX ? list.n : AGENT_CONTROL_ARG_MAX;

        while (list.p[n - 1] != ',') { /* each serial has one behind it, and is short */
            n--;
        }
        POSTERN_ASSERT(agent_control_put(r, i, (struct str){list.p, n - 1}));
        list = (struct str){list.p + n, list.n - n};
    }
    if (list.n == 0) {
        r->flags = AGENT_CONTROL_SERIALS_LAST;
    }
    return list;
}

/* Issuing has stopped by now, so the journal has all that there is. */
static int add_serials(const struct options *o, const char *path, const char *digest,
                       struct agent_control_request *r, struct buf *out)
{
    mem_autofree char *dir = NULL;
    struct buf list = BUF_INIT(SERIALS_MAX);
    struct err err = ERR_INIT;
    struct str rest;
    char text[1200];
    size_t n = 0;
    int status = role_journal_dir(NULL, o->config, path, &dir);

    if (status == 0 && journal_serials_of_image(dir, digest, os_wall_s(), &list, &n, &err) == -1) {
        fprintf(stderr,
                "postern: issuing has stopped, but connections go on until their certificates "
                "end: %s\n",
                err_text(&err, text, sizeof(text)));
        status = 1;
    }
    rest = buf_str(&list);
    while (status == 0 && rest.n > 0) {
        rest = fill(r, digest, rest);
        buf_reset(out);
        status = role_control_ask(path, r, out);
    }
    buf_reset(&list);
    return status;
}

int quarantine_main(int argc, char **argv)
{
    struct options o = {.verb = NULL};
    mem_autofree struct agent_control_request *r = mem_must_new(struct agent_control_request);
    mem_autofree char *path = NULL;
    struct buf out = BUF_INIT(AGENT_CONTROL_DOCUMENT_MAX);
    char text[QUARANTINE_TEXT_MAX + 1];
    enum quarantine_kind kind;
    int status;

    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    o.verb = argc > 1 ? argv[1] : "";
    o.subject = argc > 2 ? argv[2] : NULL;
    status = prepare(&o, r);
    if (status == 0 && role_control_path(o.config, o.control, &path) == -1) {
        status = 2;
    }
    if (status == 0) {
        status = role_control_ask(path, r, &out);
    }
    if (status == 0 && strcmp(o.verb, "add") == 0 &&
        quarantine_subject(str_of(o.subject), &kind, text, NULL) == 0 &&
        kind == QUARANTINE_IMAGE_DIGEST) {
        status = add_serials(&o, path, text, r, &out);
    }
    if (status == 0) {
        status = show(&o, &out);
    }
    buf_reset(&out);
    return status;
}
