/*
 * journal: what the real keeper writes, and what verifying finds when somebody has been at it.
 * docs/journal.md lists the attack cases.
 */
#include "keeper_process.h"

#include <postern/agent_ipc.h>
#include <postern/journal.h>
#include <postern/jsonl.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/x509.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

/* --- a keeper with a journal, and the supervisor's part of it ----------------------------------
 */
struct lab {
    char dir[64];
    int key, cert, state;
    uint64_t max_size;
};

static char *path_of(const struct lab *b, const char *name)
{
    return mem_must_printf("%s/%s", b->dir, name);
}

static void lab_make(struct lab *b)
{
    snprintf(b->dir, sizeof(b->dir), "/tmp/postern-journal-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    b->max_size = 1 << 30;
}

static void lab_remove(struct lab *b)
{
    DIR *d = opendir(b->dir);

    assert_non_null(d);
    for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        mem_autofree char *path = path_of(b, e->d_name);

        (void)unlink(path);
    }
    closedir(d);
    assert_int_equal(rmdir(b->dir), 0);
}

static int open_file(const struct lab *b, uint64_t number)
{
    char name[32];
    mem_autofree char *path = NULL;
    int fd;

    journal_file_name(number, name, sizeof(name));
    path = path_of(b, name);
    fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_int_not_equal(fd, -1);
    return fd;
}

static void send_file(const struct lab *b, struct keeper_process *k, uint64_t number,
                      uint64_t oldest)
{
    struct agent_msg_journal m;
    int fd = open_file(b, number);

    agent_ipc_init(&m, AGENT_MSG_JOURNAL_FILE, 0);
    m.number = number;
    m.oldest = oldest;
    m.max_size = b->max_size;
    keeper_send(k->control, &m, fd);
    close(fd);
}

static struct keeper_process *start(const struct lab *b, uint64_t number)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    mem_autofree char *path = path_of(b, JOURNAL_HEAD_FILE);
    int head = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct agent_msg_plain m;
    int file;

    assert_int_not_equal(head, -1);
    keeper_spawn(k);
    agent_ipc_init(&m, AGENT_MSG_JOURNAL_HEAD, 0);
    keeper_send(k->control, &m, head);
    close(head);
    send_file(b, k, number, 0);
    file = keeper_temp_file();
    keeper_send_state(k, file, true);
    close(file);
    keeper_place_state(k);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_READY);
    assert_true(keeper_load_entries(k)->ok);
    keeper_new_service(k);
    return k;
}

static uint64_t attest(struct keeper_process *k, uint32_t uid)
{
    static struct agent_msg_caller c;
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    agent_ipc_init(&c, AGENT_MSG_ATTESTED, 0);
    c.handle = k->next_handle++;
    c.uid = uid;
    c.gid = 9;
    c.pid = 1;
    c.own_view = true;
    c.read_ms = os_now_ms();
    keeper_send(k->attestor, &c, pidfd);
    close(pidfd);
    return c.handle;
}

static enum agent_outcome issue(struct keeper_process *k, uint64_t handle, uint32_t entry)
{
    EVP_PKEY *key = x509_key_new(NULL);
    struct agent_msg_issue m;

    agent_ipc_init(&m, AGENT_MSG_ISSUE, 78);
    m.handle = handle;
    m.generation = k->generation;
    m.entry = entry;
    assert_int_equal(x509_key_point(key, m.point, NULL), 0);
    EVP_PKEY_free(key);
    keeper_send(k->service, &m, -1);
    keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_ISSUED);
    return (enum agent_outcome)keeper_in.issued.outcome;
}

static void stop(struct keeper_process *k)
{
    shutdown(k->control, SHUT_RDWR);
    assert_int_equal(keeper_wait_end(k), 0);
}

static void kill_it(struct keeper_process *k)
{
    kill(k->pid, SIGKILL);
    assert_int_equal(keeper_wait_end(k), -1);
}

/* --- looking ---------------------------------------------------------------------------------- */
static struct journal_verdict verify(const struct lab *b)
{
    struct journal_verify_options o = {.dir = b->dir};
    struct journal_verdict v;
    struct err err = ERR_INIT;

    if (journal_verify(&o, &v, &err) == -1) {
        fail_msg("%s", err.what);
    }
    return v;
}

static void assert_good(const struct lab *b)
{
    struct journal_verdict v = verify(b);

    if (!v.good) {
        fail_msg("%s: %s", v.error.where, v.error.what);
    }
}

static void assert_bad(const struct lab *b, const char *where, const char *what)
{
    struct journal_verdict v = verify(b);

    if (v.good || strstr(v.error.what, what) == NULL || strstr(v.error.where, where) == NULL) {
        fail_msg("wanted '%s' at %s, got %s '%s' at %s", what, where, v.good ? "good" : "bad",
                 v.error.what, v.error.where);
    }
}

static char *slurp(const struct lab *b, const char *name, size_t *ret_len)
{
    mem_autofree char *path = path_of(b, name);
    char *text = NULL;

    assert_int_equal(os_read_file(path, 1 << 24, false, &text, ret_len, NULL), 0);
    return text;
}

static void spill(const struct lab *b, const char *name, const char *text, size_t len)
{
    mem_autofree char *path = path_of(b, name);

    assert_int_equal(os_write_file_atomic(path, text, len, 0600, NULL), 0);
}

/* Where line n (from 1) begins. */
static size_t line_at(const char *text, size_t n)
{
    const char *at = text;

    for (size_t i = 1; i < n; i++) {
        at = strchr(at, '\n');
        assert_non_null(at);
        at++;
    }
    return (size_t)(at - text);
}

/* The number of the first line with this in it. */
static size_t line_with(const char *text, const char *what)
{
    const char *at = strstr(text, what);
    size_t n = 1;

    assert_non_null(at);
    for (const char *p = text; p < at; p++) {
        n += *p == '\n';
    }
    return n;
}

static const char FIRST[] = "00000001.jsonl";

/* --- one file --------------------------------------------------------------------------------- */
/* Started, three issuances, one refusal, an end. */
static void write_some(struct lab *b)
{
    struct keeper_process *k;
    uint64_t handle;

    lab_make(b);
    k = start(b, 1);
    handle = attest(k, 5000);
    assert_int_equal(issue(k, handle, 0), AGENT_OK);
    assert_int_equal(issue(k, handle, 1), AGENT_OK);
    assert_int_equal(issue(k, handle, 2), AGENT_NOT_ENTITLED);
    assert_int_equal(issue(k, handle, 0), AGENT_OK);
    stop(k);
}

static void test_good(void **state)
{
    struct journal_verdict v;
    struct lab b;
    mem_autofree char *text = NULL;
    size_t n;

    (void)state;
    write_some(&b);
    assert_good(&b);
    v = verify(&b);
    assert_true(v.n_issued == 3 && v.first_seq == 1 && v.n_heads >= 1 && v.own_roots);
    assert_true(v.signed_seq == v.last_seq && v.n_torn == 0 && v.n_lost == 0);
    text = slurp(&b, FIRST, &n);
    assert_non_null(strstr(text, "\"event\":\"started\""));
    assert_non_null(strstr(text, "\"event\":\"stopped\""));
    assert_non_null(strstr(text, "\"count\":1,\"not_entitled\":1"));
    assert_non_null(
        strstr(text, "\"spiffe_id\":\"spiffe://example.org/second\",\"entry\":\"second\""));
    lab_remove(&b);
}

static void change_byte(struct lab *b, char *text, size_t n)
{
    char *at = strstr(text, "spiffe://example.org/second");

    at[strlen("spiffe://example.org/s")] ^= 1;
    spill(b, FIRST, text, n);
    assert_bad(b, FIRST, "was another when this was written");
}

static void remove_line(struct lab *b, char *text, size_t n)
{
    size_t line = line_with(text, "example.org/second");
    size_t from = line_at(text, line), to = line_at(text, line + 1);

    memmove(text + from, text + to, n - to);
    spill(b, FIRST, text, n - (to - from));
    assert_bad(b, FIRST, "follows");
}

static void swap_lines(struct lab *b, char *text, size_t n)
{
    size_t line = line_with(text, "\"event\":\"issued\"");
    size_t a = line_at(text, line), c = line_at(text, line + 1), d = line_at(text, line + 2);
    mem_autofree char *copy = mem_must_calloc(1, n);

    memcpy(copy, text, n);
    memcpy(copy + a, text + c, d - c);
    memcpy(copy + a + (d - c), text + a, c - a);
    spill(b, FIRST, copy, n);
    assert_bad(b, FIRST, "follows");
}

static void cut_tail(struct lab *b, char *text, size_t n)
{
    /* the last head and what it signs: whole lines, so that the rest is a good chain */
    (void)n;
    spill(b, FIRST, text, line_at(text, line_with(text, "example.org/second") + 1));
    assert_bad(b, "", "its end is cut off");
}

static void cut_within_line(struct lab *b, char *text, size_t n)
{
    spill(b, FIRST, text, n - 20);
    assert_bad(b, FIRST, "no line of a journal");
}

static void insert_line(struct lab *b, char *text, size_t n)
{
    size_t at = line_at(text, 3);
    mem_autofree char *copy = mem_must_printf("%.*s{\"x\":1}\n%s", (int)at, text, text + at);

    (void)n;
    spill(b, FIRST, copy, strlen(copy));
    assert_bad(b, "jsonl:3", "no line of a journal");
}

static void no_head_file(struct lab *b, char *text, size_t n)
{
    mem_autofree char *path = path_of(b, JOURNAL_HEAD_FILE);

    (void)text;
    (void)n;
    assert_int_equal(unlink(path), 0);
    assert_bad(b, "", "is missing");
}

static void other_signature(struct lab *b, char *text, size_t n)
{
    char *at = strstr(text, "\"signature\":\"");

    at = strchr(at + 13, '"') - 8;
    *at = *at == 'A' ? 'B' : 'A';
    spill(b, FIRST, text, n);
    assert_bad(b, FIRST, "signature is wrong");
}

static void empty_directory(struct lab *b, char *text, size_t n)
{
    mem_autofree char *path = path_of(b, FIRST);

    (void)text;
    (void)n;
    assert_int_equal(unlink(path), 0);
    assert_bad(b, "", "there is no journal");
}

static void test_tampered(void **state)
{
    static void (*const cases[])(struct lab *b, char *text, size_t n) = {
        change_byte, remove_line,  swap_lines,      cut_tail,       cut_within_line,
        insert_line, no_head_file, other_signature, empty_directory};
    struct lab b;
    mem_autofree char *text = NULL, *head = NULL;
    size_t n, n_head;

    (void)state;
    write_some(&b);
    text = slurp(&b, FIRST, &n);
    head = slurp(&b, JOURNAL_HEAD_FILE, &n_head);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mem_autofree char *copy = mem_must_calloc(1, n + 1);

        memcpy(copy, text, n);
        cases[i](&b, copy, n);
        spill(&b, FIRST, text, n);
        spill(&b, JOURNAL_HEAD_FILE, head, n_head);
        assert_good(&b);
    }
    lab_remove(&b);
}

/* Somebody writes the whole chain anew, with an authority of his own: it is of no root of ours. */
static void test_forged_from_the_beginning(void **state)
{
    struct journal_verify_options o = {.dir = NULL};
    struct journal_verdict v;
    struct lab b, other;
    mem_autofree char *text = NULL;
    mem_autofree uint8_t *root = NULL;
    struct journal_line l;
    size_t n, root_len = 0;

    (void)state;
    write_some(&b);
    write_some(&other);
    text = slurp(&b, FIRST, &n);
    for (size_t at = 0; root_len == 0 && at < n;) {
        size_t len = (size_t)(strchr(text + at, '\n') - (text + at));

        assert_true(journal_line_parse((struct str){text + at, len}, &l));
        if (jsonl_is(&l.fields, "event", "authority") && jsonl_is(&l.fields, "kind", "root")) {
            root = mem_must_calloc(1, 4096);
            assert_true(jsonl_get_base64(&l.fields, "certificates", root, 4096, &root_len));
        }
        at += len + 1;
    }
    o.roots = (struct str){(const char *)root, root_len};
    o.dir = b.dir;
    assert_int_equal(journal_verify(&o, &v, NULL), 0);
    assert_true(v.good && !v.own_roots);
    o.dir = other.dir; /* good by itself, and of another root */
    assert_int_equal(journal_verify(&o, &v, NULL), 0);
    assert_false(v.good);
    assert_non_null(strstr(v.error.what, "of no root"));
    /* a head that was noted earlier */
    v = verify(&b);
    o = (struct journal_verify_options){.dir = b.dir, .head_seq = v.signed_seq};
    memcpy(o.head_hash, v.signed_hash, sizeof(o.head_hash));
    assert_int_equal(journal_verify(&o, &v, NULL), 0);
    assert_true(v.good);
    o.head_hash[0] ^= 1;
    assert_int_equal(journal_verify(&o, &v, NULL), 0);
    assert_false(v.good);
    lab_remove(&b);
    lab_remove(&other);
}

/* --- a journal by whoever has a key ------------------------------------------------------------
 */
struct forger {
    X509 *cert, *root;
    EVP_PKEY *key;
    char text[16384];
    size_t n;
    uint64_t seq;
    uint8_t prev[JOURNAL_HASH_SIZE];
    struct jsonl_writer w;
};

static EVP_PKEY *make_cert(const char *id, bool ca, X509 *issuer, EVP_PKEY *issuer_key, X509 **ret)
{
    EVP_PKEY *key = x509_key_new(NULL);
    uint8_t point[AGENT_POINT_SIZE];
    struct x509_issue what = {.spiffe_id = str_of(id),
                              .point = point,
                              .ca = ca,
                              .path_len = -1,
                              .not_before_s = os_wall_s() - 60,
                              .not_after_s = os_wall_s() + 3600};

    assert_non_null(key);
    assert_int_equal(x509_key_point(key, point, NULL), 0);
    assert_int_equal(x509_issue(&what, issuer, issuer_key != NULL ? issuer_key : key, ret, NULL),
                     0);
    return key;
}

static void forge_begin(struct forger *f, const char *event)
{
    char when[32];

    os_time_text(os_wall_s(), when, sizeof(when));
    jsonl_begin(&f->w, f->text + f->n, sizeof(f->text) - f->n - 1);
    jsonl_put_uint(&f->w, "seq", ++f->seq);
    jsonl_put_text(&f->w, "time", str_of(when), sizeof(when));
    jsonl_put_hex(&f->w, "prev", f->prev, sizeof(f->prev));
    jsonl_put_text(&f->w, "event", str_of(event), 64);
}

static void forge_end(struct forger *f)
{
    assert_true(jsonl_end(&f->w));
    journal_hash((struct str){f->w.text, f->w.len}, f->prev);
    f->n += f->w.len;
    f->text[f->n++] = '\n';
}

static void forge_head(struct forger *f, const uint8_t hash[JOURNAL_HASH_SIZE])
{
    uint8_t signature[256];
    size_t n = sizeof(signature);
    mem_autofree char *said = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    forge_begin(f, "head");
    jsonl_put_hex(&f->w, "authority", hash, JOURNAL_HASH_SIZE);
    said = mem_must_printf("%s%.*s", JOURNAL_HEAD_PREFIX, (int)f->w.len, f->w.text);
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, f->key), 1);
    assert_int_equal(EVP_DigestSign(ctx, signature, &n, (uint8_t *)said, strlen(said)), 1);
    EVP_MD_CTX_free(ctx);
    jsonl_put_base64(&f->w, "signature", signature, n);
    forge_end(f);
}

static struct journal_verdict forge(struct forger *f)
{
    struct lab b;
    struct journal_verdict v;
    mem_autofree uint8_t *der = NULL, *root = NULL;
    struct journal_verify_options o = {.dir = b.dir};
    uint8_t hash[JOURNAL_HASH_SIZE];
    size_t len, root_len, head;

    lab_make(&b);
    assert_int_equal(x509_to_der(f->cert, &der, &len, NULL), 0);
    assert_int_equal(x509_to_der(f->root, &root, &root_len, NULL), 0);
    journal_hash((struct str){(const char *)der, len}, hash);
    forge_begin(f, "started");
    forge_end(f);
    forge_begin(f, "authority");
    jsonl_put_text(&f->w, "kind", STR_LIT("node"), 8);
    jsonl_put_hex(&f->w, "authority", hash, sizeof(hash));
    jsonl_put_base64(&f->w, "certificates", der, len);
    forge_end(f);
    head = f->n;
    forge_head(f, hash);
    spill(&b, FIRST, f->text, f->n);
    spill(&b, JOURNAL_HEAD_FILE, f->text + head, f->n - head);
    o.roots = (struct str){(const char *)root, root_len};
    assert_int_equal(journal_verify(&o, &v, NULL), 0);
    lab_remove(&b);
    return v;
}

/* Under the true root, once by an authority, once by a workload with the key of its SVID. */
static void test_forged_by_a_workload(void **state)
{
    X509 *root = NULL, *node = NULL, *leaf = NULL;
    EVP_PKEY *root_key = make_cert("spiffe://example.org", true, NULL, NULL, &root);
    EVP_PKEY *node_key = make_cert("spiffe://example.org", true, root, root_key, &node);
    EVP_PKEY *leaf_key = make_cert("spiffe://example.org/a", false, root, root_key, &leaf);
    struct forger *f = mem_must_new(struct forger);
    struct journal_verdict v;

    (void)state;
    *f = (struct forger){.cert = node, .root = root, .key = node_key};
    v = forge(f);
    assert_true(v.good && v.n_heads == 1);
    *f = (struct forger){.cert = leaf, .root = root, .key = leaf_key};
    v = forge(f);
    assert_false(v.good);
    assert_non_null(strstr(v.error.what, "none of an authority"));
    assert_non_null(strstr(v.error.where, "jsonl:2"));
    free(f);
    X509_free(root);
    X509_free(node);
    X509_free(leaf);
    EVP_PKEY_free(root_key);
    EVP_PKEY_free(node_key);
    EVP_PKEY_free(leaf_key);
}

/* --- ends that were not orderly --------------------------------------------------------------- */
static void test_killed_and_resumed(void **state)
{
    struct lab b;
    struct keeper_process *k;
    mem_autofree char *text = NULL;
    size_t n;
    char name[] = "00000001.jsonl";

    (void)state;
    lab_make(&b);
    k = start(&b, 1);
    assert_int_equal(issue(k, attest(k, 5000), 0), AGENT_OK);
    kill_it(k);
    k = start(&b, 1);
    assert_int_equal(issue(k, attest(k, 5000), 1), AGENT_OK);
    stop(k);
    assert_good(&b);
    text = slurp(&b, name, &n);
    assert_non_null(strstr(text, "\"event\":\"resumed\"}"));
    lab_remove(&b);
}

/* The kill came in the middle of a line: cut at every byte of the last one. */
static void test_torn_line(void **state)
{
    struct lab b;
    struct keeper_process *k;
    mem_autofree char *whole = NULL, *text = NULL;
    struct journal_verdict v;
    size_t n, last, step;

    (void)state;
    lab_make(&b);
    k = start(&b, 1);
    assert_int_equal(issue(k, attest(k, 5000), 0), AGENT_OK);
    kill_it(k);
    whole = slurp(&b, FIRST, &n);
    last = line_at(whole, line_with(whole, "\"event\":\"issued\""));
    n = last + strcspn(whole + last, "\n");
    for (size_t cut = last + 1; cut <= n; cut += step) {
        step = cut + 40 < n ? 40 : 1;
        mem_autofree char *head = path_of(&b, JOURNAL_HEAD_FILE);

        (void)unlink(head); /* a head may have come before the kill */
        spill(&b, FIRST, whole, cut);
        assert_bad(&b, FIRST, "no line of a journal");
        k = start(&b, 1);
        stop(k);
        assert_good(&b);
        v = verify(&b);
        assert_true(v.n_torn == 1);
        if (n - cut < 38) {
            break; /* a few at the end are enough */
        }
    }
    /* and torn bytes that are not the ones that were owned up to */
    text = slurp(&b, FIRST, &n);
    text[last + 2] ^= 1;
    spill(&b, FIRST, text, n);
    assert_bad(&b, FIRST, "no later line accounts for it");
    lab_remove(&b);
}

/* Nothing to go on from: the agent goes on working, and verifying says that something is gone. */
static void test_destroyed_while_away(void **state)
{
    struct lab b;
    struct keeper_process *k;
    mem_autofree char *text = NULL;
    size_t n;

    (void)state;
    for (int way = 0; way < 3; way++) {
        write_some(&b);
        text = slurp(&b, FIRST, &n);
        if (way == 0) {
            spill(&b, FIRST, "garbage\nmore of it\n", 19);
        } else if (way == 1) {
            spill(&b, FIRST, "", 0);
        } else {
            spill(&b, FIRST, text, line_at(text, line_with(text, "example.org/second") + 1));
        }
        free(text);
        text = NULL;
        k = start(&b, 1);
        assert_int_equal(issue(k, attest(k, 5000), 0), AGENT_OK);
        stop(k);
        assert_bad(&b, FIRST, "were gone");
        lab_remove(&b);
    }
}

/* --- files that follow each other --------------------------------------------------------------
 */
static void write_files(struct lab *b, uint64_t n_files)
{
    struct keeper_process *k;
    uint64_t handle, number = 1;

    lab_make(b);
    b->max_size = 4096;
    k = start(b, 1);
    handle = attest(k, 5000);
    while (number < n_files) {
        assert_int_equal(issue(k, handle, 0), AGENT_OK);
        while (agent_ipc_recv(k->control, AGENT_WAY_KEEPER_SUPERVISOR, &keeper_in, &(int){-1}) ==
               IPC_OK) {
            if (keeper_in.head.type == AGENT_MSG_JOURNAL_NEXT) {
                assert_true(keeper_in.journal_next.number == number);
                number++;
                send_file(b, k, number, 1);
            }
        }
    }
    assert_int_equal(issue(k, handle, 0), AGENT_OK);
    stop(k);
}

static void test_files(void **state)
{
    struct lab b;
    mem_autofree char *first = NULL, *second = NULL, *third = NULL;
    mem_autofree char *path = NULL;
    size_t n1, n2, n3;

    (void)state;
    write_files(&b, 3);
    assert_good(&b);
    assert_int_equal(verify(&b).n_files, 3);
    first = slurp(&b, FIRST, &n1);
    second = slurp(&b, "00000002.jsonl", &n2);
    third = slurp(&b, "00000003.jsonl", &n3);
    /* one in the middle, the last, and the oldest are missing */
    path = path_of(&b, "00000002.jsonl");
    assert_int_equal(unlink(path), 0);
    assert_bad(&b, "", "file 2 is missing");
    spill(&b, "00000002.jsonl", second, n2);
    assert_good(&b);
    free(path);
    path = path_of(&b, "00000003.jsonl");
    assert_int_equal(unlink(path), 0);
    assert_bad(&b, "", "its end is cut off");
    spill(&b, "00000003.jsonl", third, n3);
    free(path);
    path = path_of(&b, FIRST);
    assert_int_equal(unlink(path), 0);
    assert_bad(&b, "", "files 1 to 1 are missing"); /* the last file said that 1 is kept */
    /* one in the place of another */
    spill(&b, FIRST, first, n1);
    spill(&b, "00000002.jsonl", third, n3);
    assert_bad(&b, "00000002.jsonl:1", "follows");
    lab_remove(&b);
}

/* What is kept shrinks by and by: that is no loss. */
static void test_oldest_removed_by_the_agent(void **state)
{
    struct lab b;
    struct keeper_process *k;
    mem_autofree char *path = NULL;
    uint64_t handle;

    (void)state;
    write_files(&b, 2);
    path = path_of(&b, FIRST);
    b.max_size = 16384; /* so that nothing is asked for before the test listens */
    k = start(&b, 2);
    handle = attest(k, 5000);
    for (bool asked = false; !asked;) {
        assert_int_equal(issue(k, handle, 0), AGENT_OK);
        while (agent_ipc_recv(k->control, AGENT_WAY_KEEPER_SUPERVISOR, &keeper_in, &(int){-1}) ==
               IPC_OK) {
            asked |= keeper_in.head.type == AGENT_MSG_JOURNAL_NEXT;
        }
    }
    assert_int_equal(unlink(path), 0);
    send_file(&b, k, 3, 2);
    assert_int_equal(issue(k, handle, 0), AGENT_OK);
    stop(k);
    assert_good(&b);
    assert_true(verify(&b).first_seq > 1);
    lab_remove(&b);
}

static void test_names(void **state)
{
    static const char *const bad[] = {"",
                                      "head",
                                      "1.jsonl",
                                      "00000000.jsonl",
                                      "00000001.json",
                                      "00000001.jsonl.torn",
                                      "0000000a.jsonl",
                                      "000000001.jsonl"};
    uint64_t n = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(journal_file_number(str_of(bad[i]), &n));
    }
    assert_true(journal_file_number(STR_LIT("00000012.jsonl"), &n) && n == 12);
    assert_true(journal_file_number(STR_LIT("123456789.jsonl"), &n) && n == 123456789);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_tampered),
        cmocka_unit_test(test_forged_from_the_beginning),
        cmocka_unit_test(test_forged_by_a_workload),
        cmocka_unit_test(test_killed_and_resumed),
        cmocka_unit_test(test_torn_line),
        cmocka_unit_test(test_destroyed_while_away),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_oldest_removed_by_the_agent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
