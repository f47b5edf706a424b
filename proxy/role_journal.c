/* role_journal: `postern journal verify|show`: the record of what an agent issued. */
#include "role_options.h"
#include "roles_priv.h"

#include <jansson.h>
#include <openssl/pem.h>
#include <poll.h>
#include <postern/conf.h>
#include <postern/journal.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LOOKS = 3, FOLLOW_MS = 250, ROOTS_MAX = 1 << 20 };

struct options {
    const char *verb;
    const char *config, *control, *dir;
    const char *root, *head;                /* verify */
    const char *since, *spiffe_id, *serial; /* show */
    bool json, follow;
};

static const struct role_option OPTIONS[] = {
    ROLE_TEXT("--dir", "DIR", struct options, dir, "PLACE: the journal's directory itself"),
    ROLE_TEXT("--config", "FILE", struct options, config, "PLACE: by the agent's file"),
    ROLE_TEXT("--control", "PATH", struct options, control,
              "PLACE: ask the running agent (" AGENT_CONTROL_DEFAULT ")"),
    ROLE_TEXT("--root", "FILE", struct options, root,
              "trusted roots, PEM or DER; without it those that the\njournal names"),
    ROLE_TEXT("--head", "SEQ:HASH", struct options, head, "a head noted earlier has to be there"),
    ROLE_TEXT("--since", "TIME", struct options, since,
              "2026-01-02T03:04:05Z, or how long ago: 90s, 30m, 2h, 7d"),
    ROLE_TEXT("--spiffe-id", "ID", struct options, spiffe_id, "what was issued to it"),
    ROLE_TEXT("--serial", "HEX", struct options, serial, "a certificate's serial number"),
    ROLE_FLAG("--follow", struct options, follow, "go on with what is written"),
    ROLE_FLAG("--json", struct options, json, "as JSON"),
};
static const struct role_use USE = {
    .command = "journal",
    .uses = ROLE_USES(
        "journal verify [--root FILE] [--head SEQ:HASH] [--json] [PLACE]",
        "journal show [--since TIME] [--spiffe-id ID] [--serial HEX] [--follow] [--json] [PLACE]"),
    ROLE_OPTIONS(OPTIONS),
    .max_words = 1,
};

static bool fits(const struct options *o)
{
    if (strcmp(o->verb, "verify") == 0) {
        return o->since == NULL && o->spiffe_id == NULL && o->serial == NULL && !o->follow;
    }
    return strcmp(o->verb, "show") == 0 && o->root == NULL && o->head == NULL;
}

/* --- where it is ------------------------------------------------------------------------------ */
int role_journal_dir(const char *dir, const char *config, const char *control, char **ret)
{
    mem_autofree struct agent_control_request *r = mem_must_new(struct agent_control_request);
    mem_autofree char *path = NULL;
    struct buf out = BUF_INIT(AGENT_CONTROL_DOCUMENT_MAX);
    const char *state;
    json_t *doc;
    int status;

    if (dir != NULL) {
        *ret = mem_must_strdup(dir);
        return 0;
    }
    if (config != NULL && control == NULL) { /* the agent need not run */
        return role_state_path(config, JOURNAL_DIR, ret) == -1 ? 2 : 0;
    }
    if (role_control_path(config, control, &path) == -1) {
        return 2;
    }
    agent_control_init(r, AGENT_CONTROL_AGENT);
    status = role_control_ask(path, r, &out);
    doc = status == 0 ? json_loadb((const char *)buf_head(&out), buf_len(&out), 0, NULL) : NULL;
    state = json_string_value(json_object_get(doc, "state_dir"));
    if (state != NULL) {
        *ret = mem_must_printf("%s/%s", state, JOURNAL_DIR);
    } else if (status == 0) {
        status = 1;
    }
    json_decref(doc);
    buf_reset(&out);
    return status;
}

/* --- verify ----------------------------------------------------------------------------------- */
/* Every certificate of a PEM file, or a DER file as it is. */
static int read_roots(const char *path, struct buf *out, struct err *err)
{
    mem_autofree char *text = NULL;
    size_t n = 0;
    BIO *bio;
    X509 *cert;

    if (os_read_file(path, ROOTS_MAX, false, &text, &n, err) == -1) {
        return -1;
    }
    if (n > 0 && strstr(text, "-----BEGIN") == NULL) {
        return buf_append(out, text, n) ? 0 : err_set(err, ERR_LIMIT, "no memory");
    }
    bio = BIO_new_mem_buf(text, (int)n);
    while (bio != NULL && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        uint8_t *der = NULL;
        size_t len = 0;

        if (x509_to_der(cert, &der, &len, NULL) == 0) {
            (void)buf_append(out, der, len);
        }
        free(der);
        X509_free(cert);
    }
    BIO_free(bio);
    if (buf_len(out) == 0) {
        err_set(err, ERR_CONFIG, "no certificate is in this file");
        return err_where(err, "%s", path);
    }
    return 0;
}

static bool take_head(const char *text, struct journal_verify_options *o)
{
    const char *colon = strchr(text, ':');
    char line[128];
    struct jsonl l;

    if (colon == NULL ||
        !str_to_u64((struct str){text, (size_t)(colon - text)}, UINT64_MAX, &o->head_seq) ||
        snprintf(line, sizeof(line), "{\"h\":\"%s\"}", colon + 1) >= (int)sizeof(line)) {
        return false;
    }
    return jsonl_parse(str_of(line), &l) &&
           jsonl_get_hex(&l, "h", o->head_hash, sizeof(o->head_hash)) && o->head_seq > 0;
}

static void hex(const uint8_t *bytes, size_t n, char *ret)
{
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(ret + 2 * i, 3, "%02x", bytes[i]);
    }
}

static void print_verdict(const struct journal_verdict *v, bool json)
{
    char head[2 * JOURNAL_HASH_SIZE + 1] = "", text[1200];

    hex(v->signed_hash, v->n_heads > 0 ? JOURNAL_HASH_SIZE : 0, head);
    if (json) {
        json_t *doc = json_pack(
            "{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:b}", "good", v->good,
            "files", (json_int_t)v->n_files, "lines", (json_int_t)v->n_lines, "issued",
            (json_int_t)v->n_issued, "first_seq", (json_int_t)v->first_seq, "last_seq",
            (json_int_t)v->last_seq, "heads", (json_int_t)v->n_heads, "signed_seq",
            (json_int_t)v->signed_seq, "signed_hash", head, "torn", (json_int_t)v->n_torn, "lost",
            (json_int_t)v->n_lost, "own_roots", v->own_roots);

        if (!v->good) {
            json_object_set_new(doc, "where", json_string(v->error.where));
            json_object_set_new(doc, "error", json_string(v->error.what));
        }
        json_dumpf(doc, stdout, JSON_COMPACT);
        printf("\n");
        json_decref(doc);
        return;
    }
    if (!v->good) {
        printf("BAD: %s\n", err_text(&v->error, text, sizeof(text)));
    }
    printf("%s%llu lines (%llu to %llu) in %llu files, %llu issuances, %llu signed heads\n",
           v->good ? "good: " : "until there: ", (unsigned long long)v->n_lines,
           (unsigned long long)v->first_seq, (unsigned long long)v->last_seq,
           (unsigned long long)v->n_files, (unsigned long long)v->n_issued,
           (unsigned long long)v->n_heads);
    if (v->n_heads > 0) {
        printf("signed up to %llu:%s\n", (unsigned long long)v->signed_seq, head);
    }
    if (v->n_torn > 0 || v->n_lost > 0) {
        printf("%llu torn lines are accounted for; %llu lines were lost to a failing disk\n",
               (unsigned long long)v->n_torn, (unsigned long long)v->n_lost);
    }
    if (v->own_roots) {
        printf(
            "judged by the roots that the journal itself names: give --root to judge by yours\n");
    }
}

static int verify(const struct options *o, const char *dir)
{
    struct journal_verify_options what = {.dir = dir};
    struct journal_verdict v = {.good = false};
    struct buf roots = BUF_INIT(ROOTS_MAX);
    struct err err = ERR_INIT;
    char text[1200];
    int r = 0;

    if (o->head != NULL && !take_head(o->head, &what)) {
        fprintf(stderr, "postern: '%s' is no head: write SEQ:HASH, as verify prints it\n", o->head);
        return 2;
    }
    if (o->root != NULL) {
        r = read_roots(o->root, &roots, &err);
        what.roots = buf_str(&roots);
    }
    for (int i = 0; r == 0 && i < LOOKS && (i == 0 || v.unfinished); i++) {
        (void)poll(NULL, 0, i * FOLLOW_MS);
        r = journal_verify(&what, &v, &err);
    }
    buf_reset(&roots);
    if (r == -1) {
        fprintf(stderr, "postern: %s\n", err_text(&err, text, sizeof(text)));
        return 1;
    }
    print_verdict(&v, o->json);
    return v.good ? 0 : 1;
}

/* --- show ------------------------------------------------------------------------------------- */
struct filter {
    char since[32]; /* as lines have their time, so that it compares as text */
    const char *spiffe_id;
    char serial[64];
    bool json;
};

static bool take_since(const char *text, char ret[32])
{
    static const char units[] = "smhd";
    static const int64_t seconds[] = {1, 60, 3600, 86400};
    size_t n = strlen(text);
    const char *unit = n > 1 ? strchr(units, text[n - 1]) : NULL;
    struct tm tm = {.tm_sec = 0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    uint64_t value;

    if (end != NULL && *end == '\0') {
        (void)snprintf(ret, 32, "%s", text);
        return true;
    }
    if (unit == NULL || !str_to_u64((struct str){text, n - 1}, 1000000000, &value)) {
        return false;
    }
    os_time_text(os_wall_s() - (int64_t)value * seconds[unit - units], ret, 32);
    return true;
}

/* As it stands in certificates and other outputs: in small letters, without colons or zeros in
 * front. */
static bool plain_serial(const char *text, char *ret, size_t size)
{
    size_t o = 0;

    for (; *text != '\0'; text++) {
        char c = *text >= 'A' && *text <= 'F' ? (char)(*text + 32) : *text;

        if (c == ':' || (c == '0' && o == 0)) {
            continue;
        }
        if (strchr("0123456789abcdef", c) == NULL || o + 1 == size) {
            return false;
        }
        ret[o++] = c;
    }
    ret[o] = '\0';
    return o > 0;
}

static bool wanted(const struct filter *f, const struct journal_line *l)
{
    char text[AGENT_CONTROL_ARG_MAX + 64], plain[64];

    if (f->since[0] != '\0' &&
        (!jsonl_get_text(&l->fields, "time", text, sizeof(text)) || strcmp(text, f->since) < 0)) {
        return false;
    }
    if (f->spiffe_id != NULL &&
        (!jsonl_get_text(&l->fields, "spiffe_id", text, sizeof(text)) ||
         strcmp(text, f->spiffe_id) != 0) &&
        !jsonl_is(&l->fields, "subject", f->spiffe_id)) {
        return false;
    }
    return f->serial[0] == '\0' ||
           (jsonl_get_text(&l->fields, "serial", text, sizeof(text)) &&
            plain_serial(text, plain, sizeof(plain)) && strcmp(plain, f->serial) == 0);
}

/* Texts are shown as they stand, with their escapes: no control byte reaches the terminal. */
static void print_line(const struct filter *f, struct str line, const struct journal_line *l)
{
    if (f->json) {
        printf("%.*s\n", (int)line.n, line.p);
        return;
    }
    printf("%.*s %8llu %.*s", STR_ARG(l->fields.fields[1].value), (unsigned long long)l->seq,
           STR_ARG(l->event));
    for (size_t i = 4; i < l->fields.n; i++) {
        const struct jsonl_field *one = &l->fields.fields[i];

        if (str_eq(one->key, STR_LIT("certificates")) || str_eq(one->key, STR_LIT("signature"))) {
            continue;
        }
        printf(" %.*s=%.*s", STR_ARG(one->key), STR_ARG(one->value));
    }
    printf("\n");
}

/* From an offset; returns where the next whole line will begin. */
static size_t show_file(const struct filter *f, const struct journal_file *file, size_t at)
{
    while (at < file->len) {
        const char *end = memchr(file->data + at, '\n', file->len - at);
        struct str line;
        struct journal_line l;

        if (end == NULL) {
            break;
        }
        line = (struct str){file->data + at, (size_t)(end - file->data) - at};
        if (journal_line_parse(line, &l) && wanted(f, &l)) {
            print_line(f, line, &l);
        }
        at += line.n + 1;
    }
    return at;
}

/* All that is there, from where the last look ended. */
static int show_new(const struct filter *f, const char *dir, uint64_t *file, size_t *at,
                    struct err *err)
{
    mem_autofree uint64_t *numbers = NULL;
    size_t n = 0;

    if (journal_list(dir, &numbers, &n, err) == -1) {
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        struct journal_file one;

        if (numbers[i] < *file) {
            continue;
        }
        if (journal_file_open(dir, numbers[i], &one, err) == -1) {
            return -1;
        }
        *at = show_file(f, &one, numbers[i] == *file ? *at : 0);
        *file = numbers[i];
        journal_file_close(&one);
    }
    return fflush(stdout) == 0 ? 0 : err_sys(err, "standard output");
}

static int show(const struct options *o, const char *dir)
{
    struct filter f = {.spiffe_id = o->spiffe_id, .json = o->json};
    struct err err = ERR_INIT;
    char text[1200];
    uint64_t file = 0;
    size_t at = 0;

    if (o->since != NULL && !take_since(o->since, f.since)) {
        fprintf(stderr, "postern: '%s' is no time: write 2026-01-02T03:04:05Z or 2h\n", o->since);
        return 2;
    }
    if (o->serial != NULL && !plain_serial(o->serial, f.serial, sizeof(f.serial))) {
        fprintf(stderr, "postern: '%s' is no serial\n", o->serial);
        return 2;
    }
    do {
        if (show_new(&f, dir, &file, &at, &err) == -1) {
            fprintf(stderr, "postern: %s\n", err_text(&err, text, sizeof(text)));
            return 1;
        }
        if (o->follow) {
            (void)poll(NULL, 0, FOLLOW_MS);
        }
    } while (o->follow);
    return 0;
}

int journal_main(int argc, char **argv)
{
    struct options o = {.verb = NULL};
    mem_autofree char *dir = NULL;
    int status;

    if (!role_options(&USE, &argc, argv, &o, &status)) {
        return status;
    }
    o.verb = argc > 1 ? argv[1] : "";
    if (!fits(&o)) {
        return role_misuse(&USE, "expected `verify` or `show`, each with its own options");
    }
    status = role_journal_dir(o.dir, o.config, o.control, &dir);
    if (status != 0) {
        return status;
    }
    return strcmp(o.verb, "verify") == 0 ? verify(&o, dir) : show(&o, dir);
}
