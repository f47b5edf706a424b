/*
 * The kubelet's /pods: a v1 PodList. What is taken from it has a form (Kubernetes' own rules for
 * names and labels), so that it can stand in selectors, in paths of SPIFFE IDs and in messages
 * without another thought; a pod with anything else is left out.
 */
#include <postern/kubelet.h>

#include <ctype.h>
#include <jansson.h>
#include <postern/mem.h>
#include <stdlib.h>
#include <string.h>

/* --- forms ------------------------------------------------------------------------------------ */
static bool is_lower(char c)
{
    return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
    return is_lower(c) || is_digit(c) || (c >= 'A' && c <= 'Z');
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f');
}

static bool all_hex(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_hex(s.p[i])) {
            return false;
        }
    }
    return s.n > 0;
}

/* RFC 1123 as Kubernetes reads it: labels of lower-case letters, digits and hyphens, with dots
 * between them. */
static bool name_ok(struct str s, size_t max)
{
    char before = '.';

    if (s.n == 0 || s.n > max) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool inner = c == '-' && before != '.';
        bool dot = c == '.' && before != '.' && before != '-';

        if (!is_lower(c) && !is_digit(c) && !inner && !dot) {
            return false;
        }
        before = c;
    }
    return before != '.' && before != '-';
}

/* The part of a label key behind its prefix, or a label value. */
static bool word_ok(struct str s)
{
    if (s.n == 0 || s.n > 63 || !is_alnum(s.p[0]) || !is_alnum(s.p[s.n - 1])) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (!is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && s.p[i] != '.') {
            return false;
        }
    }
    return true;
}

static bool label_key_ok(struct str s)
{
    const char *slash = s.n > 0 ? memchr(s.p, '/', s.n) : NULL;
    struct str prefix;

    if (slash == NULL) {
        return word_ok(s);
    }
    prefix = (struct str){s.p, (size_t)(slash - s.p)};
    return name_ok(prefix, KUBELET_NAME_MAX) &&
           word_ok((struct str){slash + 1, s.n - prefix.n - 1});
}

/* What the pod's cgroup is named after. */
static bool uid_ok(struct str s)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

    if (s.n == 32) {
        return all_hex(s);
    }
    if (s.n != sizeof(form) - 1) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (form[i] == '-' ? s.p[i] != '-' : !is_hex(s.p[i])) {
            return false;
        }
    }
    return true;
}

static bool image_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] <= ' ' || s.p[i] > '~') {
            return false;
        }
    }
    return s.n > 0 && s.n <= KUBELET_IMAGE_MAX;
}

/* Behind "runtime://"; empty if it is none. */
static struct str container_id(struct str s)
{
    size_t at = 0;

    while (at < s.n && (is_lower(s.p[at]) || is_digit(s.p[at]) || s.p[at] == '-')) {
        at++;
    }
    if (at == 0 || s.n - at != 3 + KUBELET_CONTAINER_ID_MAX || memcmp(s.p + at, "://", 3) != 0 ||
        !all_hex((struct str){s.p + at + 3, KUBELET_CONTAINER_ID_MAX})) {
        return STR_NONE;
    }
    return (struct str){s.p + at + 3, KUBELET_CONTAINER_ID_MAX};
}

struct str kubelet_image_digest(struct str image_id)
{
    const char *at = image_id.n > 0 ? memrchr(image_id.p, '@', image_id.n) : NULL;
    struct str s = image_id;
    struct str hex;

    if (at != NULL) {
        s = (struct str){at + 1, image_id.n - (size_t)(at + 1 - image_id.p)};
    } else if (str_has_prefix(s, STR_LIT("docker://"))) { /* a local image of dockershim's */
        s = (struct str){s.p + 9, s.n - 9};
    }
    if (s.n != 7 + 64 && s.n != 7 + 128) {
        return STR_NONE;
    }
    hex = (struct str){s.p + 7, s.n - 7};
    return str_has_prefix(s, hex.n == 64 ? STR_LIT("sha256:") : STR_LIT("sha512:")) && all_hex(hex)
               ? s
               : STR_NONE;
}

/* --- JSON ------------------------------------------------------------------------------------- */
/* The parser recurses, so the depth is bounded before it runs. */
static bool depth_ok(const char *json, size_t len)
{
    size_t depth = 0;
    bool in_text = false;

    for (size_t i = 0; i < len; i++) {
        switch (json[i]) {
        case '"':
            in_text = !in_text;
            break;
        case '\\':
            i += in_text;
            break;
        case '{':
        case '[':
            if (!in_text && ++depth > KUBELET_DEPTH_MAX) {
                return false;
            }
            break;
        case '}':
        case ']':
            if (!in_text && depth > 0) {
                depth--;
            }
            break;
        default:
            break;
        }
    }
    return true;
}

static struct str text_of(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);

    return json_is_string(v) ? (struct str){json_string_value(v), json_string_length(v)} : STR_NONE;
}

static char *dup_str(struct str s)
{
    return s.n > 0 ? mem_must_strndup(s.p, s.n) : NULL;
}

/* --- one pod ---------------------------------------------------------------------------------- */
static void pod_clear(struct kubelet_pod *p)
{
    free(p->uid);
    free(p->namespace);
    free(p->name);
    free(p->service_account);
    free(p->node);
    for (size_t i = 0; i < p->n_labels; i++) {
        free(p->labels[i].key);
        free(p->labels[i].value);
    }
    free(p->labels);
    for (size_t i = 0; i < p->n_containers; i++) {
        free(p->containers[i].id);
        free(p->containers[i].name);
        free(p->containers[i].image);
        free(p->containers[i].image_id);
        free(p->containers[i].digest);
    }
    free(p->containers);
    *p = (struct kubelet_pod){0};
}

static int take_labels(json_t *metadata, struct kubelet_pod *p, struct err *err)
{
    json_t *labels = json_object_get(metadata, "labels");
    size_t n = json_object_size(labels);
    size_t text = 0;
    const char *key;
    json_t *value;

    if (n > KUBELET_LABELS_MAX) {
        return err_set(err, ERR_LIMIT, "%zu labels, more than %d", n, KUBELET_LABELS_MAX);
    }
    p->labels = mem_must_calloc(n + 1, sizeof(*p->labels));
    json_object_foreach(labels, key, value)
    {
        struct str v = {json_string_value(value), json_string_length(value)};

        if (!label_key_ok(str_of(key)) || !json_is_string(value) || (v.n > 0 && !word_ok(v))) {
            return err_set(err, ERR_PROTOCOL, "a label is not in Kubernetes' form");
        }
        text += strlen(key) + v.n + 2;
        if (text > KUBELET_LABELS_TEXT_MAX) {
            return err_set(err, ERR_LIMIT, "more than %d bytes of labels", KUBELET_LABELS_TEXT_MAX);
        }
        p->labels[p->n_labels++] = (struct kubelet_label){
            .key = mem_must_strdup(key), .value = mem_must_strndup(v.n > 0 ? v.p : "", v.n)};
    }
    return 0;
}

static int take_container(const json_t *status, struct kubelet_pod *p, struct err *err)
{
    struct str whole_id = text_of(status, "containerID");
    struct str name = text_of(status, "name");
    struct str image = text_of(status, "image");
    struct str image_id = text_of(status, "imageID");
    struct str id = container_id(whole_id);

    if (whole_id.n == 0) {
        return 0; /* not made yet */
    }
    if (id.n == 0 || !name_ok(name, KUBELET_CONTAINER_NAME_MAX)) {
        return err_set(err, ERR_PROTOCOL, "a container's id or name is not in Kubernetes' form");
    }
    if (p->n_containers == KUBELET_CONTAINERS_MAX) {
        return err_set(err, ERR_LIMIT, "more than %d containers", KUBELET_CONTAINERS_MAX);
    }
    p->containers[p->n_containers++] = (struct kubelet_container){
        .id = dup_str(id),
        .name = dup_str(name),
        .image = image_ok(image) ? dup_str(image) : NULL,
        .image_id = image_ok(image_id) ? dup_str(image_id) : NULL,
        .digest = dup_str(kubelet_image_digest(image_id)),
    };
    return 0;
}

static int take_containers(const json_t *status, struct kubelet_pod *p, struct err *err)
{
    static const char *const kinds[] = {"initContainerStatuses", "containerStatuses",
                                        "ephemeralContainerStatuses"};

    size_t n = 0;

    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        n += json_array_size(json_object_get(status, kinds[k]));
    }
    n = n < KUBELET_CONTAINERS_MAX ? n : KUBELET_CONTAINERS_MAX;
    p->containers = mem_must_calloc(n + 1, sizeof(*p->containers));
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        const json_t *list = json_object_get(status, kinds[k]);
        const json_t *item;
        size_t i;

        json_array_foreach(list, i, item)
        {
            if (take_container(item, p, err) == -1) {
                return -1;
            }
        }
    }
    return 0;
}

/* An optional name: absent is fine, another form is not. */
static int take_name(const json_t *object, const char *key, char **ret, struct err *err)
{
    struct str s = text_of(object, key);

    if (s.n > 0 && !name_ok(s, KUBELET_NAME_MAX)) {
        return err_set(err, ERR_PROTOCOL, "'%s' is not in Kubernetes' form", key);
    }
    *ret = dup_str(s);
    return 0;
}

static int take_pod(json_t *item, struct kubelet_pod *p, struct err *err)
{
    json_t *metadata = json_object_get(item, "metadata");
    const json_t *spec = json_object_get(item, "spec");
    struct str uid = text_of(metadata, "uid");

    if (!uid_ok(uid)) {
        return err_set(err, ERR_PROTOCOL, "'uid' is not one that the kubelet names cgroups after");
    }
    p->uid = dup_str(uid);
    if (take_name(metadata, "namespace", &p->namespace, err) == -1 ||
        take_name(metadata, "name", &p->name, err) == -1 ||
        take_name(spec, "serviceAccountName", &p->service_account, err) == -1 ||
        take_name(spec, "nodeName", &p->node, err) == -1) {
        return -1;
    }
    if (p->namespace == NULL || p->name == NULL) {
        return err_set(err, ERR_PROTOCOL, "no namespace or no name");
    }
    return take_labels(metadata, p, err) == -1
               ? -1
               : take_containers(json_object_get(item, "status"), p, err);
}

/* --- the list --------------------------------------------------------------------------------- */
static void leave_out(struct kubelet_pods *pods, const json_t *item, const struct err *why)
{
    const json_t *metadata = json_object_get(item, "metadata");
    struct str name = text_of(metadata, "name"), ns = text_of(metadata, "namespace");

    if (pods->n_left_out++ == 0) {
        pods->left_out = *why;
        if (name_ok(name, KUBELET_NAME_MAX) && name_ok(ns, KUBELET_NAME_MAX)) {
            err_prefix(&pods->left_out, "pod %.60s/%.120s", ns.p, name.p);
        } else {
            err_prefix(&pods->left_out, "a pod");
        }
    }
}

static void take_item(struct kubelet_pods *pods, json_t *item)
{
    struct kubelet_pod *p = &pods->items[pods->n];
    struct err why = ERR_INIT;
    int r;

    if (pods->n == KUBELET_PODS_MAX) {
        r = err_set(&why, ERR_LIMIT, "more than %d pods", KUBELET_PODS_MAX);
    } else {
        r = take_pod(item, p, &why);
        if (r == 0 && kubelet_pods_find(pods, str_of(p->uid)) != NULL) {
            r = err_set(&why, ERR_PROTOCOL, "its uid is another pod's");
        }
    }
    if (r == 0) {
        pods->n++;
    } else {
        pod_clear(p);
        leave_out(pods, item, &why);
    }
}

int kubelet_pods_parse(const char *json, size_t len, struct kubelet_pods **ret, struct err *err)
{
    struct kubelet_pods *pods;
    json_error_t why;
    json_t *root, *items, *item;
    size_t i;

    if (len > KUBELET_BODY_MAX) {
        return err_set(err, ERR_LIMIT, "the list of pods is larger than %d MiB",
                       KUBELET_BODY_MAX >> 20);
    }
    if (!depth_ok(json, len)) {
        return err_set(err, ERR_LIMIT, "the list of pods is nested deeper than %d",
                       KUBELET_DEPTH_MAX);
    }
    root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL) {
        err_set(err, ERR_PROTOCOL, "the list of pods is no JSON: %s", why.text);
        return err_where(err, "%d:%d", why.line, why.column);
    }
    items = json_object_get(root, "items");
    if (!str_eq(text_of(root, "kind"), STR_LIT("PodList")) ||
        !str_eq(text_of(root, "apiVersion"), STR_LIT("v1")) ||
        (!json_is_array(items) && !json_is_null(items))) {
        json_decref(root);
        err_set(err, ERR_PROTOCOL, "this is no list of pods");
        return err_expected(err, "a PodList of v1");
    }
    pods = mem_must_new(struct kubelet_pods);
    /* One more than is taken: what is beyond is looked at there. */
    pods->items = mem_must_calloc(KUBELET_PODS_MAX + 1, sizeof(*pods->items));
    json_array_foreach(items, i, item)
    {
        take_item(pods, item);
    }
    json_decref(root);
    *ret = pods;
    return 0;
}

struct kubelet_pods *kubelet_pods_free(struct kubelet_pods *pods)
{
    if (pods != NULL) {
        for (size_t i = 0; i < pods->n; i++) {
            pod_clear(&pods->items[i]);
        }
        free(pods->items);
        free(pods);
    }
    return NULL;
}

const struct kubelet_pod *kubelet_pods_find(const struct kubelet_pods *pods, struct str uid)
{
    for (size_t i = 0; i < pods->n; i++) {
        if (str_eq(str_of(pods->items[i].uid), uid)) {
            return &pods->items[i];
        }
    }
    return NULL;
}

const struct kubelet_container *kubelet_pod_find(const struct kubelet_pod *pod, struct str id)
{
    for (size_t i = 0; i < pod->n_containers; i++) {
        if (str_eq(str_of(pod->containers[i].id), id)) {
            return &pod->containers[i];
        }
    }
    return NULL;
}
