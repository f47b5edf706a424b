/* selector: what is true of a caller, as entries write it, in SPIRE's words. Users and groups
 * become numbers here: from then on nothing depends on the machine's databases. */
#include <postern/conf.h>

#include <grp.h>
#include <postern/mem.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "config_priv.h"

/* --- values ----------------------------------------------------------------------------------- */
/* Each checks the text behind the type's words; NULL, or why it is none. */
static const char *take_number(struct str rest, uint32_t *ret)
{
    uint64_t v = 0;
    if (!str_to_u64(rest, UINT32_MAX - 1, &v)) {
        return "not a number at the end";
    }
    *ret = (uint32_t)v;
    return NULL;
}

static const char *take_user(struct str rest, uint32_t *ret)
{
    char space[16384];
    struct passwd pw;
    struct passwd *found = NULL;
    if (getpwnam_r(rest.p, &pw, space, sizeof(space), &found) != 0 || found == NULL) {
        return "a user that this machine does not know";
    }
    *ret = found->pw_uid;
    return NULL;
}

static const char *take_group(struct str rest, uint32_t *ret)
{
    char space[16384];
    struct group gr;
    struct group *found = NULL;
    if (getgrnam_r(rest.p, &gr, space, sizeof(space), &found) != 0 || found == NULL) {
        return "a group that this machine does not know";
    }
    *ret = found->gr_gid;
    return NULL;
}

static const char *take_path(struct str rest, uint32_t *ret)
{
    (void)ret;
    return rest.n < 2 || rest.p[0] != '/' || rest.p[rest.n - 1] == '/' || rest.n > 4095
               ? "not the absolute path of an executable"
               : NULL;
}

static bool is_hex(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((s.p[i] < '0' || s.p[i] > '9') && (s.p[i] < 'a' || s.p[i] > 'f')) {
            return false;
        }
    }
    return s.n == 64;
}

static const char *take_hex(struct str rest, uint32_t *ret)
{
    (void)ret;
    return is_hex(rest) ? NULL : "without 64 lower-case hexadecimal digits at the end";
}

static const char *take_digest(struct str rest, uint32_t *ret)
{
    (void)ret;
    return str_has_prefix(rest, STR_LIT("sha256:")) && is_hex((struct str){rest.p + 7, rest.n - 7})
               ? NULL
               : "without sha256: and 64 lower-case hexadecimal digits at the end";
}

static const char *take_runtime(struct str rest, uint32_t *ret)
{
    /* By number: enum agent_runtime, less none and other. */
    static const char *const names[] = {"containerd", "crio", "docker", "podman"};
    for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (str_eq(rest, str_of(names[i]))) {
            *ret = i + 2;
            return NULL;
        }
    }
    return "none of containerd, crio, docker and podman";
}

/* Names of the things of Kubernetes and systemd: their own rules are narrower than this. */
static bool is_word(struct str s, size_t max)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= ' ' || s.p[i] == 0x7f) {
            return false;
        }
    }
    return s.n > 0 && s.n <= max;
}

static const char *take_name(struct str rest, uint32_t *ret)
{
    (void)ret;
    return is_word(rest, 253) && memchr(rest.p, '/', rest.n) == NULL ? NULL
                                                                     : "without a name at the end";
}

static const char *take_unit(struct str rest, uint32_t *ret)
{
    (void)ret;
    return is_word(rest, 255) && memchr(rest.p, '/', rest.n) == NULL &&
                   str_has_suffix(rest, STR_LIT(".service"))
               ? NULL
               : "not the name of a service unit, such as nginx.service";
}

static const char *take_image(struct str rest, uint32_t *ret)
{
    (void)ret;
    return is_word(rest, 1024) ? NULL : "without an image at the end";
}

static const char *take_label(struct str rest, uint32_t *ret)
{
    const char *colon = memchr(rest.p, ':', rest.n);
    (void)ret;
    return is_word(rest, 400) && colon != NULL && colon != rest.p ? NULL
                                                                  : "without KEY:VALUE at the end";
}

/* --- the table -------------------------------------------------------------------------------- */
static const struct selector_form {
    const char *prefix;
    enum conf_selector_type type;
    bool number;
    const char *(*take)(struct str rest, uint32_t *ret);
} forms[] = {
    {"unix:uid:", CONF_SELECTOR_UNIX_UID, true, take_number},
    {"unix:user:", CONF_SELECTOR_UNIX_USER, true, take_user},
    {"unix:gid:", CONF_SELECTOR_UNIX_GID, true, take_number},
    {"unix:group:", CONF_SELECTOR_UNIX_GROUP, true, take_group},
    {"unix:supplementary_gid:", CONF_SELECTOR_UNIX_SUPPLEMENTARY_GID, true, take_number},
    {"unix:supplementary_group:", CONF_SELECTOR_UNIX_SUPPLEMENTARY_GROUP, true, take_group},
    {"unix:path:", CONF_SELECTOR_UNIX_PATH, false, take_path},
    {"unix:sha256:", CONF_SELECTOR_UNIX_SHA256, false, take_hex},
    {"systemd:id:", CONF_SELECTOR_SYSTEMD_ID, false, take_unit},
    {"container:id:", CONF_SELECTOR_CONTAINER_ID, false, take_hex},
    {"container:runtime:", CONF_SELECTOR_CONTAINER_RUNTIME, true, take_runtime},
    {"k8s:ns:", CONF_SELECTOR_K8S_NS, false, take_name},
    {"k8s:sa:", CONF_SELECTOR_K8S_SA, false, take_name},
    {"k8s:pod-name:", CONF_SELECTOR_K8S_POD_NAME, false, take_name},
    {"k8s:pod-uid:", CONF_SELECTOR_K8S_POD_UID, false, take_name},
    {"k8s:pod-label:", CONF_SELECTOR_K8S_POD_LABEL, false, take_label},
    {"k8s:node-name:", CONF_SELECTOR_K8S_NODE_NAME, false, take_name},
    {"k8s:container-name:", CONF_SELECTOR_K8S_CONTAINER_NAME, false, take_name},
    {"k8s:container-image:", CONF_SELECTOR_K8S_CONTAINER_IMAGE, false, take_image},
    {"k8s:image-digest:", CONF_SELECTOR_K8S_IMAGE_DIGEST, false, take_digest},
};
enum { N_FORMS = sizeof(forms) / sizeof(forms[0]) };

static const struct selector_form *find_form(struct str text)
{
    for (size_t i = 0; i < N_FORMS; i++) {
        if (str_has_prefix(text, str_of(forms[i].prefix))) {
            return &forms[i];
        }
    }
    return NULL;
}

int selector_type(struct str text)
{
    const struct selector_form *f = find_form(text);
    return f != NULL ? (int)f->type : -1;
}

static const char *form_at(const void *set, size_t i)
{
    (void)set;
    return i < N_FORMS ? forms[i].prefix : NULL;
}

/* "TYPE:WORD:" of a text, for finding the word that was meant. */
static struct str words_of(struct str text)
{
    size_t colons = 0;
    for (size_t i = 0; i < text.n; i++) {
        colons += text.p[i] == ':';
        if (colons == 2) {
            return (struct str){text.p, i + 1};
        }
    }
    return text;
}

bool value_parse_selector(struct context *c, const struct field *f, const struct node *n, void *dst)
{
    const struct selector_form *form = find_form(n->text);
    if (form == NULL) {
        const char *near = nearest_word(words_of(n->text), form_at, NULL);
        char advice[100];
        if (near != NULL) {
            snprintf(advice, sizeof(advice), "did you mean '%s'?", near);
        }
        value_fail(c, f, n, near != NULL ? advice : NULL,
                   "no selector that this binary understands");
        return false;
    }
    size_t skip = strlen(form->prefix);
    struct str rest = {n->text.p + skip, n->text.n - skip};
    struct conf_selector s = {.type = form->type};
    const char *why = form->take(rest, &s.number);
    if (why != NULL) {
        value_fail(c, f, n, NULL, why);
        return false;
    }
    s.written = mem_must_strndup(n->text.p, n->text.n);
    s.text = form->number ? NULL : mem_must_strndup(rest.p, rest.n);
    *(struct conf_selector *)dst = s;
    return true;
}
