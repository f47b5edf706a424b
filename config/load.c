/* load: files to structs, by kind. A file is taken whole or not at all. */
#include <postern/conf_policy_test.h>
#include <postern/conf_rotate.h>

#include <errno.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/spiffe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_priv.h"

struct kind {
    const char *name;
    const struct table *table;
    const char *use; /* how a file of this kind is used, for one that came to the wrong place */
    struct bounds bounds; /* of its text; 0: the usual ones */
    size_t file_max;      /* 0: as much as the text */
};

static const struct bounds usual = {CONFIG_FILE_MAX, CONFIG_NODES_MAX};

enum {
    KIND_PROXY,
    KIND_GATEWAY,
    KIND_MESH,
    KIND_POLICY,
    KIND_AGENT,
    KIND_ENTRIES,
    KIND_MODES,
    KIND_ROTATE,
    KIND_POLICY_TEST,
    N_KINDS
};

static const struct kind kinds[N_KINDS] = {
    [KIND_PROXY] = {"Proxy", &table_proxy, "'postern proxy FILE' runs it"},
    [KIND_GATEWAY] = {"Gateway", &table_gateway, "'postern gateway FILE' runs it"},
    [KIND_MESH] = {"Mesh",
                   &table_mesh,
                   "'mesh' in a Proxy file names it",
                   {CONF_MESH_TEXT_MAX, CONFIG_NODES_MAX},
                   CONFIG_FILE_MAX},
    [KIND_POLICY] = {"Policy",
                     &table_policy,
                     "'policy' in a Proxy or Gateway file names it",
                     {CONFIG_POLICY_FILE_MAX, CONFIG_POLICY_NODES_MAX}},
    [KIND_AGENT] = {"Agent", &table_agent, "'postern agent FILE' runs it"},
    [KIND_ENTRIES] = {"Entries", &table_entries, "'entries' in an Agent file names it"},
    [KIND_MODES] = {"Modes", &table_modes, "'state.modes' in an Agent file names it"},
    [KIND_ROTATE] = {"Rotate", &table_rotate, "'postern rotate FILE' runs it"},
    [KIND_POLICY_TEST] = {"PolicyTest", &table_policy_test, "'postern policy test FILE' runs it"},
};

/* Every conf_* begins with its `path`, which no table knows. */
_Static_assert(offsetof(struct conf_proxy, path) == 0, "path is first");
_Static_assert(offsetof(struct conf_mesh, path) == 0, "path is first");
_Static_assert(offsetof(struct conf_policy, path) == 0, "path is first");
_Static_assert(offsetof(struct conf_agent, path) == 0, "path is first");
_Static_assert(offsetof(struct conf_entries, path) == 0, "path is first");
_Static_assert(offsetof(struct conf_modes, path) == 0, "path is first");
_Static_assert(offsetof(struct conf_rotate, path) == 0, "path is first");
_Static_assert(offsetof(struct conf_policy_test, path) == 0, "path is first");

static void *kind_free(const struct kind *k, void *conf)
{
    if (conf != NULL) {
        schema_clear(k->table, conf);
        free(*(char **)conf);
        free(conf);
    }
    return NULL;
}

static const char *kind_name_at(const void *set, size_t i)
{
    (void)set;
    return i < N_KINDS ? kinds[i].name : NULL;
}

static const struct kind *find_kind(struct str name)
{
    for (size_t i = 0; i < N_KINDS; i++) {
        if (str_eq(name, str_of(kinds[i].name))) {
            return &kinds[i];
        }
    }
    return NULL;
}

/* NULL: of any kind, of which the largest is a Policy. */
static const struct bounds *kind_bounds(const struct kind *k)
{
    k = k != NULL ? k : &kinds[KIND_POLICY];
    return k->bounds.bytes > 0 ? &k->bounds : &usual;
}

/* The `kind:` of a file; NULL when it was reported. */
static const struct kind *read_kind(struct context *c, const struct node *root)
{
    static const char *const expected =
        "Proxy, Gateway, Mesh, Policy, Agent, Entries, Modes, Rotate or PolicyTest";
    if (root->kind != NODE_MAP) {
        report(c, root, "a mapping that begins with 'kind:' and 'level:'", NULL,
               "not a configuration file");
        return NULL;
    }
    const struct node *n = node_get(root, "kind");
    if (n == NULL) {
        report(c, root, expected, "every file opens with 'kind:' and 'level:'",
               "missing key 'kind'");
        return NULL;
    }
    if (n->kind != NODE_SCALAR) {
        if (n->kind != NODE_BAD) {
            report(c, n, expected, NULL, "'kind' holds no text");
        }
        return NULL;
    }
    const struct kind *k = find_kind(n->text);
    if (k == NULL) {
        struct shown s;
        char advice[60];
        const char *near = nearest_word(n->text, kind_name_at, NULL);
        if (near != NULL) {
            snprintf(advice, sizeof(advice), "did you mean '%s'?", near);
        }
        report(c, n, expected, near != NULL ? advice : NULL, "no such kind %s", show(&s, n->text));
    }
    return k;
}

/* False: the file needs more than this binary has, so that its other errors mean nothing. Where it
 * says no level, or none that can be read, that is its error, and its keys are of any. */
static bool check_level(struct context *c, const struct node *root)
{
    const struct node *n = node_get(root, "level");
    uint64_t level;
    c->level = CONF_LEVEL;
    if (n == NULL || n->kind != NODE_SCALAR || n->quoted ||
        !str_to_u64(n->text, UINT32_MAX, &level)) {
        return true;
    }
    if (level > 0 && level <= CONF_LEVEL) {
        c->level = (unsigned)level;
    }
    if (level > CONF_LEVEL) {
        report(c, n, NULL, "use a newer binary",
               "needs feature level %u, this binary understands %d", (unsigned)level, CONF_LEVEL);
        return false;
    }
    return true;
}

/* The absolute form of a path; of itself only, since a link may be moved to another file later. */
static char *absolute_path(const char *path)
{
    char cwd[4096];
    if (path[0] == '/' || getcwd(cwd, sizeof(cwd)) == NULL) {
        return mem_must_strdup(path);
    }
    return mem_must_printf("%s/%s", cwd, path);
}

/* A file that was read before anyone knew of which kind it is. */
static bool within(struct context *c, const struct bounds *b, const struct tree *tree, size_t len)
{
    if (len > b->bytes) {
        report_at(c, 1, 1, NULL, NULL, "larger than %zu bytes", b->bytes);
    } else if (tree_count(tree) > b->nodes) {
        report_at(c, 1, 1, NULL, NULL, "more than %zu values in one file", b->nodes);
    } else {
        return true;
    }
    return false;
}

/* As kind `want`, or as the file's own when that is NULL; the kind and the struct, or NULL. The
 * tree is the caller's, if ret_tree is not NULL. */
static const struct kind *parse_text(const struct kind *want, const char *name, const char *text,
                                     size_t len, struct conf_diag *diag, void **ret,
                                     struct tree **ret_tree)
{
    mem_autofree char *path = absolute_path(name);
    mem_autofree char *dir = mem_must_strdup(path);
    char *slash = strrchr(dir, '/');
    if (slash != NULL) {
        slash[slash == dir ? 1 : 0] = '\0';
    }
    struct context c = {.bounds = *kind_bounds(want),
                        .diag = diag,
                        .file = name,
                        .dir = dir,
                        .file_no = diag_next_file(diag)};
    size_t before = diag_total(diag);
    struct tree *tree = tree_parse(&c, text, len);
    if (tree == NULL) {
        return NULL;
    }
    const struct node *root = tree_root(tree);
    const struct kind *k = read_kind(&c, root);
    void *conf = NULL;
    if (k != NULL && want != NULL && k != want) {
        report(&c, node_get(root, "kind"), want->name, k->use, "a file of kind %s", k->name);
    } else if (k != NULL && want == NULL && !within(&c, kind_bounds(k), tree, len)) {
        ; /* reported */
    } else if (k != NULL && check_level(&c, root)) {
        conf = mem_must_calloc(1, k->table->size);
        schema_parse(&c, k->table, root, conf);
    }
    if (conf == NULL || diag_total(diag) != before) {
        tree_free(tree);
        kind_free(k, conf);
        return NULL;
    }
    if (ret_tree != NULL) {
        *ret_tree = tree;
    } else {
        tree_free(tree);
    }
    *(char **)conf = path;
    path = NULL;
    *ret = conf;
    return k;
}

static const struct kind *load_file(const struct kind *want, const char *path,
                                    struct conf_diag *diag, void **ret)
{
    mem_autofree char *text = NULL;
    size_t len = 0;
    struct err err = ERR_INIT;
    size_t max = want != NULL && want->file_max > 0 ? want->file_max : kind_bounds(want)->bytes;
    if (os_read_file(path, max, false, &text, &len, &err) != 0) {
        if (err.where[0] == '\0') {
            err_where(&err, "%s", path);
        }
        diag_add(diag, diag_next_file(diag), 0, 0, &err);
        return NULL;
    }
    return parse_text(want, path, text, len, diag, ret, NULL);
}

/* The public functions differ in their types only. */
#define DEFINE_LOAD(lower, UPPER, type)                                                            \
    int conf_load_##lower(const char *path, struct conf_diag *diag, struct type **ret)             \
    {                                                                                              \
        void *conf;                                                                                \
        if (load_file(&kinds[KIND_##UPPER], path, diag, &conf) == NULL) {                          \
            return -1;                                                                             \
        }                                                                                          \
        *ret = conf;                                                                               \
        return 0;                                                                                  \
    }                                                                                              \
    int conf_parse_##lower(const char *name, const char *text, size_t len, struct conf_diag *diag, \
                           struct type **ret)                                                      \
    {                                                                                              \
        void *conf;                                                                                \
        if (parse_text(&kinds[KIND_##UPPER], name, text, len, diag, &conf, NULL) == NULL) {        \
            return -1;                                                                             \
        }                                                                                          \
        *ret = conf;                                                                               \
        return 0;                                                                                  \
    }
#define DEFINE_KIND(lower, UPPER)                                                                  \
    DEFINE_LOAD(lower, UPPER, conf_##lower)                                                        \
    struct conf_##lower *conf_##lower##_free(struct conf_##lower *conf)                            \
    {                                                                                              \
        return kind_free(&kinds[KIND_##UPPER], conf);                                              \
    }

DEFINE_LOAD(proxy, PROXY, conf_proxy)
DEFINE_LOAD(gateway, GATEWAY, conf_proxy)

struct conf_proxy *conf_proxy_free(struct conf_proxy *conf)
{
    return kind_free(&kinds[conf != NULL && conf->gateway ? KIND_GATEWAY : KIND_PROXY], conf);
}

DEFINE_KIND(mesh, MESH)
DEFINE_KIND(policy, POLICY)
DEFINE_KIND(agent, AGENT)
DEFINE_KIND(entries, ENTRIES)
DEFINE_KIND(modes, MODES)
DEFINE_KIND(rotate, ROTATE)
DEFINE_KIND(policy_test, POLICY_TEST)

int conf_parse_policy_tree(const char *name, const char *text, size_t len, struct conf_diag *diag,
                           struct conf_policy **ret, struct tree **ret_tree)
{
    void *conf;
    if (parse_text(&kinds[KIND_POLICY], name, text, len, diag, &conf, ret_tree) == NULL) {
        return -1;
    }
    *ret = conf;
    return 0;
}

/* --- check ------------------------------------------------------------------------------------ */
static void check_named(int kind, const char *path, struct conf_diag *diag)
{
    void *conf;
    if (path != NULL && load_file(&kinds[kind], path, diag, &conf) != NULL) {
        kind_free(&kinds[kind], conf);
    }
}

static void check_policy(const char *path, struct conf_diag *diag)
{
    mem_autofree char *text = NULL;
    size_t len = 0;
    struct err err = ERR_INIT;
    if (path == NULL || os_read_file(path, CONFIG_FILE_MAX, false, &text, &len, &err) != 0 ||
        !conf_policy_is_foreign((struct str){text, len})) {
        check_named(KIND_POLICY, path, diag);
    }
}

/* Entries are of the agent's trust domain, or nothing would be issued for them. */
static void check_agent_entries(const struct conf_agent *a, struct conf_diag *diag)
{
    struct conf_entries *entries;
    if (conf_load_entries(a->entries_path, diag, &entries) != 0) {
        return;
    }
    struct context c = {
        .diag = diag, .file = a->entries_path, .dir = "/", .file_no = diag_next_file(diag)};
    for (size_t i = 0; i < entries->n_entries; i++) {
        const struct conf_entry *e = &entries->entries[i];
        struct spiffe_id id;
        struct shown name;
        struct shown s;
        char expected[160];
        if (spiffe_id_parse(str_of(e->spiffe_id), &id, NULL) == 0 &&
            !spiffe_id_member_of(&id, str_of(a->trust_domain))) {
            snprintf(expected, sizeof(expected), "an identity in the agent's trust domain %s",
                     show(&s, str_of(a->trust_domain)));
            report_at(&c, e->line, 1, expected, NULL, "entry %s is of another trust domain",
                      show(&name, str_of(e->id)));
        }
    }
    conf_entries_free(entries);
}

int conf_check(const char *path, struct conf_diag *diag, const char **ret_kind)
{
    size_t before = diag_total(diag);
    void *conf = NULL;
    const struct kind *k = load_file(NULL, path, diag, &conf);
    if (k == NULL) {
        return -1;
    }
    if (k == &kinds[KIND_PROXY] || k == &kinds[KIND_GATEWAY]) {
        const struct conf_proxy *p = conf;
        check_named(KIND_MESH, p->mesh_path, diag);
        check_policy(p->policy_path, diag);
    } else if (k == &kinds[KIND_AGENT]) {
        const struct conf_agent *a = conf;
        check_agent_entries(a, diag);
        check_policy(a->state.policy_path, diag);
        check_named(KIND_MESH, a->state.mesh_path, diag);
        check_named(KIND_MODES, a->state.modes_path, diag);
    } else if (k == &kinds[KIND_POLICY_TEST]) {
        check_policy(((const struct conf_policy_test *)conf)->policy_path, diag);
    }
    kind_free(k, conf);
    if (diag_total(diag) != before) {
        return -1;
    }
    if (ret_kind != NULL) {
        *ret_kind = k->name;
    }
    return 0;
}

/* --- kinds and their reference ---------------------------------------------------------------- */
const char *const *conf_kinds(void)
{
    static const char *const names[] = {"Proxy",   "Gateway", "Mesh",   "Policy",     "Agent",
                                        "Entries", "Modes",   "Rotate", "PolicyTest", NULL};
    return names;
}

bool conf_reference(const char *kind, struct buf *out)
{
    const struct kind *k = find_kind(str_of(kind));
    return k != NULL && reference_write(k->name, k->table, out);
}

bool conf_json_schema(const char *kind, struct buf *out)
{
    const struct kind *k = find_kind(str_of(kind));
    return k != NULL && json_schema_write(k->name, k->table, out);
}
