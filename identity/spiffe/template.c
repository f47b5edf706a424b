/* template: SPIFFE IDs with variables in them. */
#include <postern/spiffe.h>

#include <string.h>

static const struct {
    const char *name;
    enum spiffe_kind kind;
} VARIABLES[SPIFFE_N_VARIABLES] = {
    [SPIFFE_K8S_NS] = {"k8s.ns", SPIFFE_KIND_K8S},
    [SPIFFE_K8S_SA] = {"k8s.sa", SPIFFE_KIND_K8S},
    [SPIFFE_K8S_POD_NAME] = {"k8s.pod-name", SPIFFE_KIND_K8S},
    [SPIFFE_K8S_POD_UID] = {"k8s.pod-uid", SPIFFE_KIND_K8S},
    [SPIFFE_K8S_CONTAINER_NAME] = {"k8s.container-name", SPIFFE_KIND_K8S},
    [SPIFFE_K8S_NODE_NAME] = {"k8s.node-name", SPIFFE_KIND_K8S},
    [SPIFFE_UNIX_UID] = {"unix.uid", SPIFFE_KIND_UNIX},
    [SPIFFE_UNIX_GID] = {"unix.gid", SPIFFE_KIND_UNIX},
    [SPIFFE_SYSTEMD_ID] = {"systemd.id", SPIFFE_KIND_SYSTEMD},
    [SPIFFE_CONTAINER_ID] = {"container.id", SPIFFE_KIND_CONTAINER},
};

static const char *kind_prefix(enum spiffe_kind kind)
{
    switch (kind) {
    case SPIFFE_KIND_UNIX:
        return "unix:";
    case SPIFFE_KIND_K8S:
        return "k8s:";
    case SPIFFE_KIND_SYSTEMD:
        return "systemd:";
    case SPIFFE_KIND_CONTAINER:
        break;
    }
    return "container:";
}

/* SPIFFE_N_VARIABLES: there is none of that name. */
static size_t find_variable(struct str name)
{
    size_t i = 0;

    while (i < SPIFFE_N_VARIABLES && !str_eq(name, str_of(VARIABLES[i].name))) {
        i++;
    }
    return i;
}

bool spiffe_template_is(struct str text)
{
    return text.n > 0 && memchr(text.p, '{', text.n) != NULL;
}

/* One step of a template: what is literal before the next variable, and that variable's name
 * (STR_NONE at the end). false: a brace that has no other. */
static bool next_piece(struct str *rest, struct str *ret_literal, struct str *ret_name)
{
    const char *open = rest->n > 0 ? memchr(rest->p, '{', rest->n) : NULL;
    size_t before = open != NULL ? (size_t)(open - rest->p) : rest->n;
    const char *close;

    *ret_literal = (struct str){rest->p, before};
    *ret_name = STR_NONE;
    if (before > 0 && memchr(rest->p, '}', before) != NULL) {
        return false;
    }
    if (open == NULL) {
        *rest = STR_NONE;
        return true;
    }
    close = memchr(open, '}', rest->n - before);
    if (close == NULL) {
        return false;
    }
    *ret_name = (struct str){open + 1, (size_t)(close - open) - 1};
    *rest = (struct str){close + 1, rest->n - before - ret_name->n - 2};
    return true;
}

/* An ID in the making. */
struct made {
    char text[SPIFFE_ID_MAX + 1];
    size_t n;
};

static bool append(struct made *m, struct str s)
{
    if (s.n > SPIFFE_ID_MAX - m->n) {
        return false;
    }
    if (s.n > 0) {
        memcpy(m->text + m->n, s.p, s.n);
    }
    m->n += s.n;
    m->text[m->n] = 0;
    return true;
}

static int check_variable(struct str name, unsigned kinds, struct err *err)
{
    size_t v = find_variable(name);

    if (v == SPIFFE_N_VARIABLES) {
        err_set(err, ERR_CONFIG, "{%.*s} is no variable", STR_ARG(name));
        return err_expected(err, "{k8s.ns}, {k8s.sa}, {k8s.pod-name}, {k8s.pod-uid}, "
                                 "{k8s.container-name}, {k8s.node-name}, {unix.uid}, {unix.gid}, "
                                 "{systemd.id} or {container.id}");
    }
    if (((unsigned)VARIABLES[v].kind & kinds) == 0) {
        err_set(err, ERR_CONFIG, "{%s} stands for something that no selector asks for",
                VARIABLES[v].name);
        return err_expected(err, "a selector that begins with %s", kind_prefix(VARIABLES[v].kind));
    }
    return 0;
}

/* The template with a letter in the place of each variable. */
static int make_sample(struct str text, unsigned kinds, struct made *ret, struct err *err)
{
    static const struct str SCHEME = {"spiffe://", 9};
    struct str rest = text, literal, name = {"", 0};
    bool in_segment = false, in_path = false;

    while (name.p != NULL && rest.n > 0) {
        if (!next_piece(&rest, &literal, &name)) {
            return err_set(err, ERR_CONFIG, "a brace has no other");
        }
        if (!append(ret, literal)) {
            return err_set(err, ERR_CONFIG, "it is longer than %d bytes", SPIFFE_ID_MAX);
        }
        if (literal.n > 0 && memchr(literal.p, '/', literal.n) != NULL) {
            in_segment = false;
            in_path =
                ret->n > SCHEME.n && memchr(ret->text + SCHEME.n, '/', ret->n - SCHEME.n) != NULL;
        }
        if (name.p == NULL) {
            break;
        }
        if (!in_path) {
            return err_set(err, ERR_CONFIG, "a variable stands in the trust domain");
        }
        if (in_segment) {
            err_set(err, ERR_CONFIG, "two variables share a segment of the path");
            return err_expected(err, "a / between them");
        }
        in_segment = true;
        if (check_variable(name, kinds, err) == -1) {
            return -1;
        }
        if (!append(ret, STR_LIT("x"))) {
            return err_set(err, ERR_CONFIG, "it is longer than %d bytes", SPIFFE_ID_MAX);
        }
    }
    return 0;
}

int spiffe_template_check(struct str text, unsigned kinds, struct str *ret_trust_domain,
                          struct err *err)
{
    struct made sample = {.n = 0};
    struct spiffe_id id;

    if (make_sample(text, kinds, &sample, err) == -1 ||
        spiffe_id_parse((struct str){sample.text, sample.n}, &id, err) == -1) {
        return -1;
    }
    /* No variable is in what comes before the path: there the two texts are the same. */
    *ret_trust_domain = (struct str){text.p + (id.trust_domain.p - sample.text), id.trust_domain.n};
    return 0;
}

/* What may stand in a segment of a path, whatever is around it. */
static bool segment_ok(struct str s)
{
    if (s.n == 0 || str_eq(s, STR_LIT(".")) || str_eq(s, STR_LIT(".."))) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';

        if (!ok) {
            return false;
        }
    }
    return true;
}

bool spiffe_template_expand(struct str text, const struct str values[SPIFFE_N_VARIABLES],
                            char ret[SPIFFE_ID_MAX + 1])
{
    struct made made = {.n = 0};
    struct str rest = text, literal, name = {"", 0};
    struct spiffe_id id;

    while (name.p != NULL && rest.n > 0) {
        size_t v;

        if (!next_piece(&rest, &literal, &name) || !append(&made, literal)) {
            return false;
        }
        if (name.p == NULL) {
            break;
        }
        v = find_variable(name);
        if (v == SPIFFE_N_VARIABLES || !segment_ok(values[v]) || !append(&made, values[v])) {
            return false;
        }
    }
    if (spiffe_id_parse((struct str){made.text, made.n}, &id, NULL) == -1 || id.path.n == 0) {
        return false;
    }
    memcpy(ret, made.text, made.n + 1);
    return true;
}
