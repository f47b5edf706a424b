/* rotate --status: how fresh the files of a configuration are, whether a daemon runs or not. */
#include "roles_priv.h"
#include "rotate_priv.h"

#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>

struct found {
    struct rotate_set set;
    enum rotate_freshness freshness;
    struct err why; /* of MISSING */
};

/* 0 all fresh and well, 1 some stale or not well, 2 some expired or missing. */
static int exit_status(enum rotate_freshness worst)
{
    return worst == ROTATE_FRESH ? 0 : worst == ROTATE_STALE ? 1 : 2;
}

static void print_text(const struct conf_rotate_output *o, const struct found *f, int64_t now_s)
{
    char text[1200];
    printf("%-20s %-8s ", o->name, rotate_freshness_name(f->freshness));
    if (f->freshness == ROTATE_MISSING) {
        role_put(err_text(&f->why, text, sizeof(text)));
        printf("\n");
        return;
    }
    int64_t ends_s = rotate_set_ends_s(&f->set);
    role_put(f->set.spiffe_id[0] != '\0' ? f->set.spiffe_id : "-");
    if (ends_s == 0) {
        printf("  does not end");
    } else {
        os_time_text(ends_s, text, sizeof(text));
        printf("  until %s (%lld s)", text, (long long)(ends_s - now_s));
    }
    printf("  generation %llu\n", (unsigned long long)f->set.generation);
}

static json_t *as_json(const struct conf_rotate_output *o, const struct found *f, int64_t now_s)
{
    char text[1200];
    bool missing = f->freshness == ROTATE_MISSING;
    json_t *j = json_object();
    json_object_set_new(j, "name", json_string(o->name));
    json_object_set_new(j, "directory", json_string(o->directory));
    rotate_report_set(j, missing ? NULL : &f->set, f->freshness, now_s);
    json_object_set_new(j, "error",
                        missing ? json_string(err_text(&f->why, text, sizeof(text))) : json_null());
    return j;
}

/* What a running daemon says of an output, which is NULL if none says anything. What could have
 * been told and was not is no better than a failure; without a socket nobody can tell. */
static bool is_well(const struct conf_rotate *conf, const struct conf_rotate_output *o,
                    const json_t *said)
{
    return rotate_actions_well(said) && !json_is_string(json_object_get(said, "write_error")) &&
           (conf->admin.socket == NULL || rotate_actions_known(o, said));
}

static void print_said(const struct conf_rotate_output *o, const json_t *said)
{
    const char *error = json_string_value(json_object_get(said, "write_error"));
    if (error != NULL) {
        printf("  not written: ");
        role_put(error);
        printf("\n");
    }
    rotate_actions_print(said, role_put);
    if (!rotate_actions_known(o, said)) {
        printf("  after and verify: not known, no running daemon tells\n");
    }
}

static void add_said(json_t *j, const struct conf_rotate_output *o, const json_t *said)
{
    static const char *const names[] = {"after", "verify", "write_error"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        json_t *value = json_object_get(said, names[i]);
        json_object_set_new(j, names[i], value != NULL ? json_incref(value) : json_null());
    }
    json_object_set_new(j, "outcome_known", json_boolean(rotate_actions_known(o, said)));
}

static int tell(const struct conf_rotate *conf, bool json)
{
    enum rotate_freshness worst = ROTATE_FRESH;
    int64_t now_s = os_wall_s();
    json_t *list = json_array();
    json_t *running = rotate_actions_ask(conf);
    struct found *f = mem_must_new(struct found);
    for (size_t i = 0; i < conf->n_outputs; i++) {
        const struct conf_rotate_output *o = &conf->outputs[i];
        *f = (struct found){0};
        f->freshness = rotate_published_read(o, conf->warn_before_expiry, now_s, &f->set, &f->why);
        json_t *said = rotate_actions_find(running, o->name);
        worst = f->freshness > worst ? f->freshness : worst;
        worst = worst < ROTATE_STALE && !is_well(conf, o, said) ? ROTATE_STALE : worst;
        if (json) {
            json_t *j = as_json(o, f, now_s);
            add_said(j, o, said);
            json_array_append_new(list, j);
        } else {
            print_text(o, f, now_s);
            print_said(o, said);
        }
    }
    free(f);
    json_decref(running);
    if (json) {
        json_t *doc = json_object();
        json_object_set_new(doc, "state", json_string(rotate_freshness_name(worst)));
        json_object_set(doc, "outputs", list);
        char *text = json_dumps(doc, JSON_INDENT(2));
        printf("%s\n", text != NULL ? text : "");
        free(text);
        json_decref(doc);
    }
    json_decref(list);
    return exit_status(worst);
}

int rotate_status(const char *path, bool json)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *conf = NULL;
    int status = 2;
    jwt_init();
    if (conf_load_rotate(path, diag, &conf) == 0) {
        status = tell(conf, json);
    }
    role_print_diag(diag);
    conf_diag_free(diag);
    conf_rotate_free(conf);
    return status;
}
