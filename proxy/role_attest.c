/* role_attest: `postern agent attest PID`: every selector that a process has, and where it came
 * from. */
#include "role_facts.h"
#include "role_options.h"
#include "roles_priv.h"

#include <grp.h>
#include <jansson.h>
#include <postern/buf.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 16384 };

struct options {
    const char *config;
    bool json;
};

static const struct role_option OPTIONS[] = {
    ROLE_TEXT("--config", "FILE", struct options, config,
              "the agent's file: where the kubelet is, how large an\n"
              "executable may be"),
    ROLE_FLAG("--json", struct options, json, "as JSON"),
};
static const struct role_use USE = {
    .command = "agent attest",
    .uses = ROLE_USES("agent attest [--config FILE] [--json] PID"),
    ROLE_OPTIONS(OPTIONS),
    .max_words = 1,
};

/* What is found, as JSON; printed as that or as lines. */
struct found {
    json_t *selectors; /* [{selector, source}] */
    json_t *missing;   /* [{selector, reason}] */
    char proc[64];     /* "/proc/PID" */
};

static void add(struct found *f, const char *source, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void add(struct found *f, const char *source, const char *fmt, ...)
{
    struct buf text = BUF_INIT(16384);
    va_list ap;
    bool ok;

    va_start(ap, fmt);
    ok = buf_vprintf(&text, fmt, ap);
    va_end(ap);
    if (ok) {
        /* A path may be any bytes: what is no UTF-8 has no place in JSON. */
        json_t *s = json_stringn((const char *)buf_head(&text), buf_len(&text));

        json_array_append_new(f->selectors, json_pack("{s:o, s:s}", "selector",
                                                      s != NULL ? s : json_string("(not UTF-8)"),
                                                      "source", source));
    }
    buf_reset(&text);
}

static void miss(struct found *f, const char *selector, const char *reason)
{
    json_array_append_new(f->missing,
                          json_pack("{s:s, s:s}", "selector", selector, "reason", reason));
}

static void source_of(const struct found *f, const char *name, char *ret, size_t size)
{
    (void)snprintf(ret, size, "%s/%s", f->proc, name);
}

static void add_user(struct found *f, const char *source, uint32_t uid)
{
    char space[NAMES_MAX];
    struct passwd pw, *found = NULL;

    if (getpwuid_r(uid, &pw, space, sizeof(space), &found) == 0 && found != NULL) {
        add(f, source, "unix:user:%s", found->pw_name);
    }
}

static void add_group(struct found *f, const char *source, const char *word, uint32_t gid)
{
    char space[NAMES_MAX];
    struct group gr, *found = NULL;

    if (getgrgid_r(gid, &gr, space, sizeof(space), &found) == 0 && found != NULL) {
        add(f, source, "unix:%s:%s", word, found->gr_name);
    }
}

static const char *path_reason(const struct attest_facts *a)
{
    if (!a->own_view) {
        return "it is in another mount or user namespace than this command";
    }
    return a->has_exe ? "its executable was deleted, or is on no mount of this namespace"
                      : "its executable cannot be seen";
}

static void find_unix(struct found *f, const struct role_facts *r)
{
    const struct attest_facts *a = &r->facts;
    char status[96], exe[96], hex[2 * AGENT_SHA256_SIZE + 1];

    source_of(f, "status", status, sizeof(status));
    source_of(f, "exe", exe, sizeof(exe));
    add(f, status, "unix:uid:%u", a->uid);
    add(f, status, "unix:gid:%u", a->gid);
    for (size_t i = 0; i < a->groups.n; i++) {
        add(f, status, "unix:supplementary_gid:%u", a->groups.gids[i]);
    }
    if (a->own_view) {
        add_user(f, status, a->uid);
        add_group(f, status, "group", a->gid);
        for (size_t i = 0; i < a->groups.n; i++) {
            add_group(f, status, "supplementary_group", a->groups.gids[i]);
        }
    } else {
        miss(f, "unix:user", path_reason(a));
    }
    if (a->groups.truncated) {
        miss(f, "unix:supplementary_gid", "it has more groups than are looked at");
    }
    if (a->path_len > 0) {
        add(f, exe, "unix:path:%s", a->path);
    } else {
        miss(f, "unix:path", path_reason(a));
    }
    if (!r->has_sha256) {
        miss(f, "unix:sha256", r->no_sha256);
        return;
    }
    for (size_t i = 0; i < AGENT_SHA256_SIZE; i++) {
        (void)snprintf(hex + 2 * i, 3, "%02x", r->sha256[i]);
    }
    add(f, exe, "unix:sha256:%s", hex);
}

static void find_cgroup(struct found *f, const struct role_facts *r)
{
    const struct attest_cgroup *c = &r->facts.cgroup;
    char source[96];

    source_of(f, "cgroup", source, sizeof(source));
    if (c->unit[0] != 0) {
        add(f, source, "systemd:id:%s", c->unit);
    }
    if (c->container_id[0] != 0) {
        add(f, source, "container:id:%s", c->container_id);
    }
    if (c->runtime > AGENT_RUNTIME_OTHER) {
        add(f, source, "container:runtime:%s", agent_runtime_name(c->runtime));
    }
    if (c->conflict) {
        miss(f, "container:id", "the hierarchies of its control groups disagree");
    } else if (c->contained && c->container_id[0] == 0) {
        miss(f, "container:id", "it is inside a container, but at no place that its engine made");
    }
}

static void find_pod(struct found *f, const struct role_facts *r)
{
    const struct keeper_pod *p = r->keeper.pod;
    const struct keeper_container *c = r->keeper.container;
    static const char source[] = "the kubelet";
    char text[1200];

    if (r->keeper.pod_uid != NULL && p == NULL) {
        miss(f, "k8s:ns",
             r->no_pods.code != ERR_NONE ? err_text(&r->no_pods, text, sizeof(text))
                                         : "no kubelet was asked: --config says where it is");
    }
    if (p == NULL) {
        return;
    }
    add(f, source, "k8s:ns:%s", p->ns);
    add(f, source, "k8s:sa:%s", p->sa);
    add(f, source, "k8s:pod-name:%s", p->name);
    add(f, source, "k8s:pod-uid:%s", p->uid);
    add(f, source, "k8s:node-name:%s", p->node);
    for (size_t i = 0; i < p->n_labels; i++) {
        add(f, source, "k8s:pod-label:%s:%s", p->labels[i].key, p->labels[i].value);
    }
    if (c == NULL) {
        miss(f, "k8s:container-name", "the kubelet does not know this container (yet)");
        return;
    }
    add(f, source, "k8s:container-name:%s", c->name);
    add(f, source, "k8s:container-image:%s", c->image);
    if (c->digest[0] != 0) {
        add(f, source, "k8s:image-digest:%s", c->digest);
    }
}

/* What came from /proc was the process's to choose: nothing of it reaches a terminal as it is. */
static void print_safe(const char *text, int width)
{
    role_put(text);
    for (int n = (int)strlen(text); n < width; n++) {
        putchar(' ');
    }
}

static void print_list(const json_t *list, const char *second, const char *between)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *row = json_array_get(list, i);

        print_safe(json_string_value(json_object_get(row, "selector")), 44);
        printf("  %s", between);
        print_safe(json_string_value(json_object_get(row, second)), 0);
        printf("\n");
    }
}

static void print_found(const struct found *f, const struct role_facts *r)
{
    print_list(f->selectors, "source", "");
    if (r->facts.contained) {
        printf("contained: entries of unix selectors alone do not fit it\n");
    }
    print_list(f->missing, "reason", "not: ");
}

static int show(const struct role_facts *r, pid_t pid, bool as_json)
{
    struct found f = {.selectors = json_array(), .missing = json_array()};
    json_t *doc;

    (void)snprintf(f.proc, sizeof(f.proc), "/proc/%d", (int)pid);
    find_unix(&f, r);
    find_cgroup(&f, r);
    find_pod(&f, r);
    if (as_json) {
        doc = json_pack("{s:i, s:b, s:O, s:O}", "pid", (int)pid, "contained", r->facts.contained,
                        "selectors", f.selectors, "missing", f.missing);
        (void)json_dumpf(doc, stdout, JSON_INDENT(2));
        printf("\n");
        json_decref(doc);
    } else {
        print_found(&f, r);
    }
    json_decref(f.selectors);
    json_decref(f.missing);
    return 0;
}

int attest_main(int argc, char **argv)
{
    struct options o = {.config = NULL};
    struct conf_agent *conf = NULL;
    struct role_facts *facts;
    struct err err = ERR_INIT;
    char text[1200];
    int status;
    pid_t pid;

    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    if (argc != 2) {
        return role_misuse(&USE, "expected a PID");
    }
    pid = role_facts_pid(argv[1]);
    if (pid == -1 || (o.config != NULL && (conf = role_agent_config(o.config)) == NULL)) {
        return 2;
    }
    status = 1;
    facts = calloc(1, sizeof(*facts));
    if (facts != NULL && role_facts_gather(facts, pid, conf, true, &err) == 0) {
        status = show(facts, pid, o.json);
    } else {
        fprintf(stderr, "postern: %s\n", err_text(&err, text, sizeof(text)));
    }
    if (facts != NULL) {
        role_facts_deinit(facts);
    }
    free(facts);
    conf_agent_free(conf);
    return status;
}
