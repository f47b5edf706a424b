/* import: entries as `spire-server entry show -output json` prints them. An entry is carried over
 * whole or not at all: one without a selector that we don't have would fit more than it did. */
#include <postern/entries.h>

#include <jansson.h>
#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct import {
    void (*problem)(void *arg, const char *text);
    void *arg;
    const json_t *parent; /* of the entries so far, lent */
    size_t n_parents;
};

static void problem(struct import *im, const json_t *entry, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void problem(struct import *im, const json_t *entry, const char *fmt, ...)
{
    const char *id = entry != NULL ? json_string_value(json_object_get(entry, "id")) : NULL;
    char what[400], text[600];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    (void)snprintf(text, sizeof(text), "entry '%.128s': %s", id != NULL ? id : "?", what);
    /* It may hold anything that the file held: nothing of it reaches a terminal as it is. */
    for (char *c = text; *c != 0; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            *c = '?';
        }
    }
    im->problem(im->arg, text);
}

/* --- the form --------------------------------------------------------------------------------- */
static bool is_empty_array(const json_t *v)
{
    return json_is_array(v) && json_array_size(v) == 0;
}
static bool is_false(const json_t *v)
{
    return json_is_false(v);
}
/* 64-bit numbers are strings in protobuf's JSON. */
static bool is_zero(const json_t *v)
{
    return (json_is_string(v) && strcmp(json_string_value(v), "0") == 0) ||
           (json_is_integer(v) && json_integer_value(v) == 0);
}
static bool is_any(const json_t *v)
{
    return v != NULL;
}

/* Every key that SPIRE prints. `idle`: the values that mean nothing to us; others have no place in
 * our files, and then `what` says so. NULL: carried over. */
static const struct {
    const char *name;
    bool (*idle)(const json_t *v);
    const char *what;
} KEYS[] = {
    {"id", NULL, NULL},
    {"spiffe_id", NULL, NULL},
    {"parent_id", NULL, NULL},
    {"selectors", NULL, NULL},
    {"x509_svid_ttl", NULL, NULL},
    {"jwt_svid_ttl", NULL, NULL},
    {"dns_names", NULL, NULL},
    {"hint", NULL, NULL},
    {"federates_with", is_empty_array, "federation is not a matter of entries here"},
    {"admin", is_false, "it is an administrator of SPIRE"},
    {"downstream", is_false, "it may sign for others"},
    {"store_svid", is_false, "its SVID is stored elsewhere"},
    {"expires_at", is_zero, "entries don't expire here"},
    {"revision_number", is_any, NULL},
    {"created_at", is_any, NULL},
};
enum { N_KEYS = sizeof(KEYS) / sizeof(KEYS[0]) };

static bool check_keys(struct import *im, const json_t *entry)
{
    const char *key;
    json_t *value;
    bool ok = true;

    json_object_foreach((json_t *)(uintptr_t)entry, key, value)
    {
        size_t i = 0;

        while (i < N_KEYS && strcmp(KEYS[i].name, key) != 0) {
            i++;
        }
        if (i == N_KEYS) {
            problem(im, entry, "'%.60s' is a key that this binary does not know", key);
            ok = false;
        } else if (KEYS[i].idle != NULL && !KEYS[i].idle(value)) {
            problem(im, entry, "'%s': %s", key, KEYS[i].what);
            ok = false;
        }
    }
    return ok;
}

/* --- the text --------------------------------------------------------------------------------- */
/* In single quotes; false: it holds what cannot stand there. */
static bool put_quoted(struct buf *out, const char *text)
{
    bool ok = buf_append(out, "'", 1);

    for (const char *c = text; ok && *c != 0; c++) {
        ok = (unsigned char)*c >= ' ' && *c != 0x7f && buf_append(out, c, 1) &&
             (*c != '\'' || buf_append(out, "'", 1));
    }
    return ok && buf_append(out, "'", 1);
}

static bool put_key(struct buf *out, const char *key, const char *text)
{
    return buf_printf(out, "    %s: ", key) && put_quoted(out, text) && buf_append(out, "\n", 1);
}

/* {"trust_domain": T, "path": P}; NULL: not that. The caller's to free(). */
static char *id_text(const json_t *v)
{
    const char *td = json_string_value(json_object_get(v, "trust_domain"));
    const char *path = json_string_value(json_object_get(v, "path"));

    if (td == NULL || path == NULL || json_object_size(v) != 2) {
        return NULL;
    }
    return mem_must_printf("spiffe://%s%s", td, path);
}

static bool put_selectors(struct import *im, const json_t *entry, struct buf *out)
{
    const json_t *list = json_object_get(entry, "selectors");
    bool ok =
        json_is_array(list) && json_array_size(list) > 0 && buf_printf(out, "    selectors:\n");

    if (!ok) {
        problem(im, entry, "it has no selectors");
        return false;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *s = json_array_get(list, i);
        const char *type = json_string_value(json_object_get(s, "type"));
        const char *value = json_string_value(json_object_get(s, "value"));
        mem_autofree char *text = NULL;

        if (type == NULL || value == NULL || json_object_size(s) != 2) {
            problem(im, entry, "a selector has not the form of one");
            return false;
        }
        text = mem_must_printf("%s:%s", type, value);
        if (!buf_append(out, "      - ", 8) || !put_quoted(out, text) ||
            !buf_append(out, "\n", 1)) {
            problem(im, entry, "a selector holds control characters");
            return false;
        }
    }
    return true;
}

static bool put_ttl(struct import *im, const json_t *entry, const char *theirs, const char *ours,
                    struct buf *out)
{
    const json_t *v = json_object_get(entry, theirs);

    if (v == NULL || is_zero(v)) {
        return true;
    }
    if (!json_is_integer(v) || json_integer_value(v) < 0) {
        problem(im, entry, "'%s' is no number of seconds", theirs);
        return false;
    }
    return buf_printf(out, "    %s: %llds\n", ours, (long long)json_integer_value(v));
}

static bool put_dns_names(struct import *im, const json_t *entry, struct buf *out)
{
    const json_t *list = json_object_get(entry, "dns_names");
    bool ok;

    if (list == NULL || is_empty_array(list)) {
        return true;
    }
    ok = json_is_array(list) && buf_printf(out, "    dns_names:\n");
    for (size_t i = 0; ok && i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));

        ok = name != NULL && buf_append(out, "      - ", 8) && put_quoted(out, name) &&
             buf_append(out, "\n", 1);
    }
    if (!ok) {
        problem(im, entry, "'dns_names' is no list of names");
    }
    return ok;
}

static bool put_entry(struct import *im, const json_t *entry, struct buf *out)
{
    const char *id = json_string_value(json_object_get(entry, "id"));
    const char *hint = json_string_value(json_object_get(entry, "hint"));
    mem_autofree char *spiffe_id = id_text(json_object_get(entry, "spiffe_id"));

    if (id == NULL || spiffe_id == NULL) {
        problem(im, entry, "it has no id, or no SPIFFE ID");
        return false;
    }
    if (!buf_append(out, "  - id: ", 8) || !put_quoted(out, id) || !buf_append(out, "\n", 1) ||
        !put_key(out, "spiffe_id", spiffe_id)) {
        problem(im, entry, "its ids hold control characters");
        return false;
    }
    if (strchr(spiffe_id, '{') != NULL) { /* no ID for SPIRE, but a variable here */
        problem(im, entry, "its SPIFFE ID holds a brace");
        return false;
    }
    if (!put_selectors(im, entry, out) || !put_ttl(im, entry, "x509_svid_ttl", "ttl", out) ||
        !put_ttl(im, entry, "jwt_svid_ttl", "jwt_ttl", out) || !put_dns_names(im, entry, out)) {
        return false;
    }
    if (hint != NULL && hint[0] != 0 && !put_key(out, "hint", hint)) {
        problem(im, entry, "its hint holds control characters");
        return false;
    }
    return true;
}

/* --- all of them ------------------------------------------------------------------------------ */
static const char HEAD[] = "kind: Entries\nlevel: 1\nentries:\n";

/* Whether the text of one entry is a file of ours: its own loader knows best. */
static bool is_sound(struct import *im, const json_t *entry, const struct buf *text)
{
    struct buf file = BUF_INIT(4 << 20);
    struct conf_diag *diag = conf_diag_new();
    struct conf_entries *conf = NULL;
    bool ok = buf_append(&file, HEAD, sizeof(HEAD) - 1) && buf_append_str(&file, buf_str(text)) &&
              conf_parse_entries("entry", (const char *)buf_head(&file), buf_len(&file), diag,
                                 &conf) == 0;

    if (!ok) {
        problem(im, entry, "%.300s",
                conf_diag_count(diag) > 0 ? conf_diag_get(diag, 0)->what : "it is too large");
    }
    conf_entries_free(conf);
    conf_diag_free(diag);
    buf_reset(&file);
    return ok;
}

/* SPIRE says by the parent on which nodes an entry is; a file of ours is one node's. */
static void note_parent(struct import *im, const json_t *entry)
{
    const json_t *parent = json_object_get(entry, "parent_id");

    if (parent != NULL && (im->parent == NULL || !json_equal(parent, im->parent))) {
        im->parent = parent;
        if (++im->n_parents == 2) {
            problem(im, entry,
                    "it has another parent than the ones before: a file here is one node's, so ask "
                    "SPIRE for the entries of one parent (-parentID)");
        }
    }
}

static bool is_second(json_t *list, size_t place)
{
    const json_t *id = json_object_get(json_array_get(list, place), "id");

    for (size_t i = 0; i < place; i++) {
        if (json_equal(id, json_object_get(json_array_get(list, i), "id"))) {
            return true;
        }
    }
    return false;
}

static bool import_entry(struct import *im, json_t *list, size_t place, struct buf *out)
{
    const json_t *entry = json_array_get(list, place);
    struct buf text = BUF_INIT(1 << 20);
    bool ok;

    if (!json_is_object(entry)) {
        problem(im, NULL, "number %zu is no entry", place + 1);
        return false;
    }
    note_parent(im, entry);
    if (is_second(list, place)) {
        problem(im, entry, "another one has this id");
        return false;
    }
    ok = check_keys(im, entry) && put_entry(im, entry, &text) && is_sound(im, entry, &text) &&
         buf_append_str(out, buf_str(&text));
    buf_reset(&text);
    return ok;
}

static int import_list(struct import *im, json_t *list, struct buf *out,
                       struct entries_imported *ret, struct err *err)
{
    struct buf items = BUF_INIT(ENTRIES_IMPORT_MAX);
    size_t n = 0;
    bool ok;

    if (json_array_size(list) > AGENT_ENTRIES_MAX) {
        err_set(err, ERR_LIMIT, "%zu entries", json_array_size(list));
        return err_expected(err, "at most %d", AGENT_ENTRIES_MAX);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        n += import_entry(im, list, i, &items);
    }
    ok = n > 0 ? buf_append(out, HEAD, sizeof(HEAD) - 1) && buf_append_str(out, buf_str(&items))
               : buf_append_str(out, STR_LIT("kind: Entries\nlevel: 1\nentries: []\n"));
    buf_reset(&items);
    ret->n = n;
    ret->n_left_out = json_array_size(list) - n;
    return ok ? 0 : err_set(err, ERR_LIMIT, "the file becomes too large");
}

int entries_import(const char *json, size_t len, struct buf *ret_yaml,
                   void (*tell)(void *arg, const char *text), void *arg,
                   struct entries_imported *ret, struct err *err)
{
    struct import im = {.problem = tell, .arg = arg};
    json_error_t why;
    json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why);
    json_t *list = json_object_get(root, "entries");
    const char *key;
    json_t *value;
    int r = -1;

    if (root == NULL) {
        err_set(err, ERR_CONFIG, "this is no JSON: %s", why.text);
        return err_where(err, "%d:%d", why.line, why.column);
    }
    if (!json_is_array(list)) {
        err_set(err, ERR_CONFIG, "there is no list of entries");
        err_expected(err, "what `spire-server entry show -output json` prints");
        json_decref(root);
        return -1;
    }
    json_object_foreach(root, key, value)
    {
        bool more = strcmp(key, "next_page_token") == 0 && json_is_string(value) &&
                    json_string_length(value) > 0;

        if (more || (strcmp(key, "entries") != 0 && strcmp(key, "next_page_token") != 0)) {
            err_set(err, ERR_CONFIG,
                    more ? "there is another page of entries"
                         : "'%.60s' is a key that this binary does not know",
                    key);
            json_decref(root);
            return -1;
        }
    }
    r = import_list(&im, list, ret_yaml, ret, err);
    json_decref(root);
    return r;
}
