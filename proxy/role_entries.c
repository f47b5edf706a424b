/* role_entries: `postern entries show|lint|test|import`: what an entry file says, what is doubtful
 * about it, what a process gets by it, and one out of what SPIRE prints. Nothing of a running agent
 * is asked. */
#include "role_facts.h"
#include "role_options.h"
#include "roles_priv.h"

#include <errno.h>
#include <jansson.h>
#include <postern/entries.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/spiffe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct options {
    const char *config, *words[2];
    int n_words;
    bool json, partial;
};

static const struct role_option OPTIONS[] = {
    ROLE_TEXT("--config", "AGENT-FILE", struct options, config,
              "the agent's file, which names one of kind Entries"),
    ROLE_FLAG("--json", struct options, json, "as JSON"),
    ROLE_FLAG("--partial", struct options, partial,
              "import: write what can be carried over, and end with 0"),
};
static const struct role_use USE = {
    .command = "entries",
    .uses = ROLE_USES("entries show [--json] FILE", "entries lint [--json] FILE",
                      "entries test [--json] PID --config AGENT-FILE | FILE",
                      "entries import [--partial] SPIRE.json"),
    .about = "FILE is of kind Entries; --config may stand in its place.\n",
    ROLE_OPTIONS(OPTIONS),
    .max_words = 3,
};

/* --- files ------------------------------------------------------------------------------------ */
struct files {
    struct conf_agent *agent; /* owned; NULL: not named */
    struct conf_entries *entries;
};

static void files_deinit(struct files *f)
{
    conf_entries_free(f->entries);
    conf_agent_free(f->agent);
}

/* The agent's file, if it is named, and the entry file. -1: told about. */
static int load_files(const struct options *o, const char *path, struct files *ret)
{
    struct conf_diag *diag;
    int r = 0;

    *ret = (struct files){.agent = NULL};
    if (o->config != NULL) {
        ret->agent = role_agent_config(o->config);
        if (ret->agent == NULL) {
            return -1;
        }
        path = path != NULL ? path : ret->agent->entries_path;
    }
    diag = conf_diag_new();
    if (conf_load_entries(path, diag, &ret->entries) == -1) {
        role_print_diag(diag);
        files_deinit(ret);
        r = -1;
    }
    conf_diag_free(diag);
    return r;
}

static void print_json(json_t *doc)
{
    (void)json_dumpf(doc, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(doc);
}

/* --- show ------------------------------------------------------------------------------------- */
static json_t *entry_json(const struct conf_entry *e, size_t place)
{
    json_t *selectors = json_array(), *names = json_array();
    json_t *doc;

    for (size_t i = 0; i < e->n_selectors; i++) {
        json_array_append_new(selectors, json_string(e->selectors[i].written));
    }
    for (size_t i = 0; i < e->dns_names.n; i++) {
        json_array_append_new(names, json_string(e->dns_names.items[i]));
    }
    doc = json_pack("{s:I, s:i, s:s, s:s, s:o, s:o}", "order", (json_int_t)place + 1, "line",
                    (int)e->line, "id", e->id, "spiffe_id", e->spiffe_id, "selectors", selectors,
                    "dns_names", names);
    if (e->ttl_s != 0) {
        json_object_set_new(doc, "ttl_s", json_integer(e->ttl_s));
    }
    if (e->jwt_ttl_s != 0) {
        json_object_set_new(doc, "jwt_ttl_s", json_integer(e->jwt_ttl_s));
    }
    if (e->hint != NULL) {
        json_object_set_new(doc, "hint", json_string(e->hint));
    }
    return doc;
}

static int show_main(const struct options *o)
{
    struct files f;

    if (o->n_words > 1 || (o->n_words == 0) == (o->config == NULL)) {
        return role_usage(&USE);
    }
    if (load_files(o, o->words[0], &f) == -1) {
        return 2;
    }
    if (o->json) {
        json_t *list = json_array();

        for (size_t i = 0; i < f.entries->n_entries; i++) {
            json_array_append_new(list, entry_json(&f.entries->entries[i], i));
        }
        print_json(list);
    }
    for (size_t i = 0; !o->json && i < f.entries->n_entries; i++) {
        const struct conf_entry *e = &f.entries->entries[i];

        printf("%zu. %s  %s\n", i + 1, e->id, e->spiffe_id);
        for (size_t k = 0; k < e->n_selectors; k++) {
            printf("     %s\n", e->selectors[k].written);
        }
        for (size_t k = 0; k < e->dns_names.n; k++) {
            printf("     dns name %s\n", e->dns_names.items[k]);
        }
        if (e->ttl_s != 0) {
            printf("     ttl %us\n", (unsigned)e->ttl_s);
        }
        if (e->hint != NULL) {
            printf("     hint %s\n", e->hint);
        }
    }
    files_deinit(&f);
    return 0;
}

/* --- lint ------------------------------------------------------------------------------------- */
struct lint {
    const char *path;
    json_t *doubts; /* NULL: lines */
    size_t n;
};

static void on_doubt(void *arg, const struct conf_entry *e, enum entries_doubt d, const char *text)
{
    struct lint *l = arg;

    l->n++;
    if (l->doubts == NULL) {
        printf("%s:%u: entry '%s': %s (%s)\n", l->path, e->line, e->id, text,
               entries_doubt_name(d));
        return;
    }
    json_array_append_new(l->doubts, json_pack("{s:i, s:s, s:s, s:s}", "line", (int)e->line, "id",
                                               e->id, "kind", entries_doubt_name(d), "text", text));
}

/* 0: nothing doubtful, 1: something, 2: the file is wrong. */
static int lint_main(const struct options *o)
{
    struct files f;
    struct lint l = {.doubts = NULL};
    struct entries_tell tell = {on_doubt, &l};

    if (o->n_words > 1 || (o->n_words == 0) == (o->config == NULL)) {
        return role_usage(&USE);
    }
    if (load_files(o, o->words[0], &f) == -1) {
        return 2;
    }
    l.path = f.entries->path;
    l.doubts = o->json ? json_array() : NULL;
    entries_lint(f.entries, &tell);
    if (o->json) {
        print_json(l.doubts);
    }
    files_deinit(&f);
    return l.n > 0 ? 1 : 0;
}

/* --- test ------------------------------------------------------------------------------------- */
static bool asks_for_digest(const struct conf_entries *conf)
{
    for (size_t i = 0; i < conf->n_entries; i++) {
        for (size_t k = 0; k < conf->entries[i].n_selectors; k++) {
            if (conf->entries[i].selectors[k].type == CONF_SELECTOR_UNIX_SHA256) {
                return true;
            }
        }
    }
    return false;
}

/* Of the agent, or else of the first entry: then all have to be of one. */
static struct str trust_domain(const struct files *f)
{
    static const struct str SCHEME = {"spiffe://", 9};
    struct str id;
    const char *slash;

    if (f->agent != NULL) {
        return str_of(f->agent->trust_domain);
    }
    if (f->entries->n_entries == 0) {
        return STR_LIT("example.org");
    }
    id = str_of(f->entries->entries[0].spiffe_id);
    POSTERN_ASSERT(id.p != NULL && id.n > SCHEME.n); /* the parser took it */
    id = (struct str){id.p + SCHEME.n, id.n - SCHEME.n};
    slash = memchr(id.p, '/', id.n);
    return (struct str){id.p, slash != NULL ? (size_t)(slash - id.p) : id.n};
}

/* The entries as the keeper has them. */
static struct keeper_entries *make_set(const struct files *f, struct err *err)
{
    static struct agent_msg_entry m;
    struct keeper_entries *set = keeper_entries_new(1, f->entries->n_entries);
    uint32_t n;
    int r = 0;

    for (size_t i = 0; r == 0 && i < f->entries->n_entries; i++) {
        r = entries_message(f->entries, i, &m, err);
        if (r == 0) {
            keeper_entries_add(set, &m, trust_domain(f));
        }
    }
    if (r == 0) {
        r = keeper_entries_check(set, NULL, &n, &n, &n, err);
    }
    return r == 0 ? set : keeper_entries_free(set);
}

/* Why an entry is not among those that the process gets. */
static void why_not(const struct keeper_entry *e, const struct conf_entry *conf,
                    const struct keeper_facts *facts, char *ret, size_t size)
{
    size_t which;

    switch (keeper_entry_judge(e, facts, &which)) {
    case KEEPER_SELECTOR:
        (void)snprintf(ret, size, "'%s' does not hold", conf->selectors[which].written);
        return;
    case KEEPER_CONTAINED:
        (void)snprintf(ret, size, "it has unix selectors alone, and the process is in a container");
        return;
    case KEEPER_TEMPLATE:
        (void)snprintf(ret, size, "a variable of its ID has no value that may stand in one");
        return;
    case KEEPER_GRANTED:
        break;
    }
    (void)snprintf(ret, size, "an earlier entry comes to the same identity, or %d others do",
                   AGENT_IDENTITIES_MAX);
}

static int report(const struct options *o, const struct files *f, const struct keeper_entries *set,
                  const struct keeper_facts *facts)
{
    json_t *gets = json_array(), *others = json_array();
    uint32_t places[AGENT_IDENTITIES_MAX];
    size_t n = keeper_entries_match(set, facts, places), next = 0;

    for (size_t i = 0; i < set->n; i++) {
        const struct conf_entry *conf = &f->entries->entries[i];
        struct keeper_grant g;
        char text[5000];

        if (next < n && places[next] == i && keeper_entries_grant(set, facts, (uint32_t)i, &g)) {
            next++;
            if (!o->json) {
                printf("gets  %s  %s%s\n", conf->id, g.spiffe_id, next == 1 ? "  (default)" : "");
            }
            json_array_append_new(gets, json_pack("{s:s, s:s, s:i}", "id", conf->id, "spiffe_id",
                                                  g.spiffe_id, "line", (int)conf->line));
            continue;
        }
        why_not(&set->items[i], conf, facts, text, sizeof(text));
        if (!o->json) {
            printf("not   %s  %s\n", conf->id, text);
        }
        json_array_append_new(others, json_pack("{s:s, s:s, s:i}", "id", conf->id, "reason", text,
                                                "line", (int)conf->line));
    }
    if (o->json) {
        print_json(json_pack("{s:O, s:O}", "gets", gets, "others", others));
    }
    json_decref(gets);
    json_decref(others);
    return n > 0 ? 0 : 1;
}

/* What cannot be known without the kubelet is said, so that "does not hold" is not misread. */
static void note_missing(const struct role_facts *r)
{
    char text[1200];

    if (r->keeper.pod_uid != NULL && r->keeper.pod == NULL) {
        fprintf(stderr, "postern: nothing is known of pod %s: %s\n", r->keeper.pod_uid,
                r->no_pods.code != ERR_NONE ? err_text(&r->no_pods, text, sizeof(text))
                                            : "--config says where the kubelet is");
    }
}

/* 0: it gets something, 1: nothing, or it cannot be seen. */
static int test_main(const struct options *o)
{
    struct files f;
    struct role_facts *facts;
    struct keeper_entries *set = NULL;
    struct err err = ERR_INIT;
    char text[1200];
    int status = 1;
    pid_t pid;

    if (o->n_words < 1 || (o->n_words == 1 && o->config == NULL)) {
        return role_usage(&USE);
    }
    pid = role_facts_pid(o->words[0]);
    if (pid == -1 || load_files(o, o->words[1], &f) == -1) {
        return 2;
    }
    facts = mem_must_new(struct role_facts);
    if (role_facts_gather(facts, pid, f.agent, asks_for_digest(f.entries), &err) == 0) {
        note_missing(facts);
        set = make_set(&f, &err);
    }
    if (set != NULL) {
        status = report(o, &f, set, &facts->keeper);
    } else {
        fprintf(stderr, "postern: %s\n", err_text(&err, text, sizeof(text)));
    }
    keeper_entries_free(set);
    role_facts_deinit(facts);
    free(facts);
    files_deinit(&f);
    return status;
}

/* --- import ----------------------------------------------------------------------------------- */
static void on_problem(void *arg, const char *text)
{
    size_t *n = arg;

    (*n)++;
    fprintf(stderr, "%s\n", text);
}

/* 0: all of it, or --partial; 1: something had no place; 2: not what SPIRE prints. */
static int import_main(const struct options *o)
{
    struct buf out = BUF_INIT(ENTRIES_IMPORT_MAX + 1024);
    struct entries_imported done = {.n = 0};
    mem_autofree char *json = NULL;
    struct err err = ERR_INIT;
    char text[1200];
    size_t len, n_problems = 0;
    int status = 2;

    if (o->n_words != 1) {
        return role_usage(&USE);
    }
    if (os_read_file(o->words[0], ENTRIES_IMPORT_MAX, false, &json, &len, &err) == -1 ||
        entries_import(json, len, &out, on_problem, &n_problems, &done, &err) == -1) {
        err_prefix(&err, "%s", o->words[0]);
        fprintf(stderr, "postern: %s\n", err_text(&err, text, sizeof(text)));
        buf_reset(&out);
        return 2;
    }
    status = n_problems == 0 || o->partial ? 0 : 1;
    if (status == 0) {
        (void)fwrite(buf_head(&out), 1, buf_len(&out), stdout);
    } else {
        fprintf(stderr, "postern: %zu of %zu entries can be carried over; --partial writes those\n",
                done.n, done.n + done.n_left_out);
    }
    buf_reset(&out);
    return status;
}

int entries_main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const struct options *o);
    } verbs[] = {
        {"show", show_main}, {"lint", lint_main}, {"test", test_main}, {"import", import_main}};
    struct options o = {.config = NULL};
    int status;

    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    o.n_words = argc > 2 ? argc - 2 : 0;
    for (int i = 0; i < o.n_words; i++) {
        o.words[i] = argv[2 + i];
    }
    for (size_t i = 0; argc > 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(argv[1], verbs[i].name) == 0) {
            return verbs[i].run(&o);
        }
    }
    return role_misuse(&USE, "expected show, lint, test or import");
}
