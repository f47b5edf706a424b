/*
 * svid: a person's client of any SPIFFE agent. Shows who the agent says that we are, and writes it
 * to files if asked; shows no key.
 */
#include "role_options.h"
#include "roles_priv.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <postern/identity_client.h>
#include <postern/os.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEFAULT_TIMEOUT_S = 10 };

struct svid_options {
    bool watch, jwt;
    struct role_svid_jwt_options token; /* of --jwt: audiences, raw */
    const char *socket;                 /* NULL: the environment */
    const char *spiffe_id;              /* NULL: the first offered */
    const char *write_dir;              /* NULL: none */
    enum identity_key_mode key;
    uint64_t timeout_s; /* fetch only */
};

struct svid_run {
    struct svid_options options;
    struct loop *loop;
    struct identity_client *client;
    struct loop_timer timeout;
    int rc;
};

static void say_err(const char *what, const struct err *err)
{
    char text[1200];
    fprintf(stderr, "postern svid: %s%s%s\n", what, what[0] != '\0' ? ": " : "",
            err_text(err, text, sizeof(text)));
}

static void stop(struct svid_run *run, int rc)
{
    run->rc = rc;
    loop_stop(run->loop);
}

/* --- files ------------------------------------------------------------------------------------ */

/* secret: the memory is wiped when it goes. */
static BIO *memory_new(bool secret)
{
    BIO *bio = BIO_new(secret ? BIO_s_secmem() : BIO_s_mem());
    POSTERN_ASSERT(bio != NULL);
    return bio;
}

static int write_memory(const char *dir, const char *name, BIO *bio, struct err *err)
{
    char *data = NULL;
    mem_autofree char *path = mem_must_printf("%s/%s", dir, name);
    long len = BIO_get_mem_data(bio, &data);
    return os_write_file_atomic(path, data, len > 0 ? (size_t)len : 0, 0600, err);
}

static int write_certs(const char *dir, const char *name, X509 *first, STACK_OF(X509) * rest,
                       struct err *err)
{
    BIO *bio = memory_new(false);
    bool ok = first == NULL || PEM_write_bio_X509(bio, first) == 1;
    for (int i = 0; ok && i < sk_X509_num(rest); i++) {
        ok = PEM_write_bio_X509(bio, sk_X509_value(rest, i)) == 1;
    }
    int rc = ok ? write_memory(dir, name, bio, err)
                : err_set(err, ERR_CRYPTO, "%s: a certificate cannot be written", name);
    BIO_free(bio);
    return rc;
}

static int write_key(const char *dir, EVP_PKEY *key, struct err *err)
{
    BIO *bio = memory_new(true);
    int rc = PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1
                 ? write_memory(dir, "svid_key.pem", bio, err)
                 : err_set(err, ERR_CRYPTO, "svid_key.pem: the key cannot be written");
    BIO_free(bio);
    return rc;
}

static int write_bundles(const char *dir, const struct identity_state *state, struct err *err)
{
    struct spiffe_id id;
    int rc = spiffe_id_parse(str_of(state->svid->spiffe_id), &id, err);
    for (size_t i = 0; rc == 0 && i < x509_trust_count(state->trust); i++) {
        struct str td = x509_trust_domain(state->trust, i);
        mem_autofree char *name = str_eq(td, id.trust_domain)
                                      ? mem_must_strdup("bundle.pem")
                                      : mem_must_printf("bundle_%.*s.pem", STR_ARG(td));
        rc = write_certs(dir, name, NULL, x509_trust_roots(state->trust, td), err);
    }
    return rc;
}

/* Key before certificate: whoever waits for the certificate finds its key. */
static int write_files(const char *dir, const struct identity_state *state, struct err *err)
{
    if (mkdir(dir, 0700) == -1 && errno != EEXIST) {
        return err_sys(err, "%s", dir);
    }
    if (write_bundles(dir, state, err) == -1 || write_key(dir, state->svid->key, err) == -1) {
        return -1;
    }
    return write_certs(dir, "svid.pem", state->svid->leaf, state->svid->intermediates, err);
}

/* --- what is shown ---------------------------------------------------------------------------- */

static void show(const struct identity_state *state)
{
    char from[32];
    char until[32];
    const struct x509_svid *svid = state->svid;
    os_time_text(svid->not_before_s, from, sizeof(from));
    os_time_text(svid->not_after_s, until, sizeof(until));
    int64_t left_s = svid->not_after_s - os_wall_s();
    printf("identity      %s\n", svid->spiffe_id);
    printf("serial        %s\n", svid->serial);
    printf("valid         %s to %s (%lldm %02llds left)\n", from, until, (long long)left_s / 60,
           (long long)left_s % 60);
    printf("intermediates %d\n", sk_X509_num(svid->intermediates));
    printf("key           %s\n", state->source == IDENTITY_FROM_CSR
                                     ? "made here, signed by the agent"
                                     : "made by the agent");
    for (size_t i = 0; i < x509_trust_count(state->trust); i++) {
        struct str td = x509_trust_domain(state->trust, i);
        size_t n = x509_trust_root_count(state->trust, td);
        printf("trust         %.*s: %zu %s\n", STR_ARG(td), n,
               n == 1 ? "authority" : "authorities");
    }
    for (size_t i = 0; state->offered != NULL && state->offered[i] != NULL; i++) {
        if (strcmp(state->offered[i], svid->spiffe_id) != 0) {
            printf("also offered  %s\n", state->offered[i]);
        }
    }
    (void)fflush(stdout);
}

static void on_state(void *arg, const struct identity_state *state)
{
    struct svid_run *run = arg;
    struct err err = ERR_INIT;
    if (state == NULL) {
        return; /* the notice says why */
    }
    if (run->options.watch && state->generation > 1) {
        printf("\n");
    }
    show(state);
    if (run->options.write_dir != NULL && write_files(run->options.write_dir, state, &err) == -1) {
        say_err("", &err);
        stop(run, 1);
    } else if (!run->options.watch) {
        stop(run, 0);
    }
}

static void on_notice(void *arg, enum identity_notice notice, const struct err *why)
{
    struct svid_run *run = arg;
    char now[32];
    if (why == NULL && (notice != IDENTITY_AGENT_BACK || !run->options.watch)) {
        return; /* on_state has shown it */
    }
    if (run->options.watch) {
        os_wall_text(now, sizeof(now));
        fprintf(stderr, "%s ", now);
    }
    if (why == NULL) {
        fprintf(stderr, "postern svid: %s\n", identity_notice_name(notice));
        return;
    }
    say_err(identity_notice_name(notice), why);
    bool final = notice == IDENTITY_AGENT_AWAY || notice == IDENTITY_DENIED;
    if (notice == IDENTITY_GAVE_UP || (!run->options.watch && final)) {
        stop(run, 1);
    }
}

static void on_timeout(void *arg)
{
    struct svid_run *run = arg;
    struct identity_status status;
    identity_client_get_status(run->client, &status);
    fprintf(stderr, "postern svid: no identity within %llu s%s\n",
            (unsigned long long)run->options.timeout_s,
            status.connected ? ", though the agent is there" : "");
    stop(run, 1);
}

static void on_signal(void *arg, int signo)
{
    (void)signo;
    stop(arg, 0);
}

/* --- the command line ------------------------------------------------------------------------- */

static bool take_key(void *options, const char *text)
{
    static const struct {
        const char *name;
        enum identity_key_mode mode;
    } modes[] = {
        {"agent", IDENTITY_KEY_AGENT}, {"csr", IDENTITY_KEY_CSR}, {"auto", IDENTITY_KEY_AUTO}};
    struct svid_options *o = options;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(text, modes[i].name) == 0) {
            o->key = modes[i].mode;
            return true;
        }
    }
    return false;
}

static bool take_audience(void *options, const char *text)
{
    struct svid_options *o = options;
    if (o->token.n_audiences == ROLE_AUDIENCES_MAX) {
        return false;
    }
    o->token.audiences[o->token.n_audiences++] = text;
    return true;
}

static const struct role_option OPTIONS[] = {
    ROLE_SOCKET(struct svid_options, socket),
    ROLE_TEXT("--id", "SPIFFE-ID", struct svid_options, spiffe_id,
              "which one of several identities (default: the first offered)"),
    ROLE_TAKE("--key", "agent|csr|auto", take_key,
              "who makes the key: the agent (default, any agent does that),\n"
              "or this process, so that the key never travels"),
    ROLE_TEXT("--write", "DIR", struct svid_options, write_dir,
              "write svid.pem, svid_key.pem, bundle.pem, and bundle_NAME.pem\n"
              "of each other trust domain, anew at each change (files 0600)"),
    ROLE_NUMBER("--timeout", "SECONDS", struct svid_options, timeout_s, 3600,
                "how long fetch waits (default 10)"),
    ROLE_FLAG("--jwt", struct svid_options, jwt, "a JWT-SVID; --write then writes jwt_svid.token"),
    ROLE_TAKE("--audience", "TEXT", take_audience,
              "of --jwt: whom the token is for; more than once for several,\n"
              "sixteen at most"),
    ROLE_FLAG("--raw", struct svid_options, token.raw, "of --jwt: print the token alone"),
};
static const struct role_use USE = {
    .command = "svid",
    .uses = ROLE_USES("svid fetch|watch [OPTIONS]", "svid show FILE",
                      "svid validate TOKEN --audience AUDIENCE [OPTIONS]"),
    .about = "Asks a SPIFFE agent who we are. fetch: once; watch: until it is interrupted. show: "
             "what a\n"
             "file with certificates or a token says. validate: whether a token is good.\n",
    ROLE_OPTIONS(OPTIONS),
    .max_words = 1,
};

/* False: the process ends with *ret_status. */
static bool parse(int argc, char **argv, struct svid_options *o, int *ret_status)
{
    if (!role_options(&USE, &argc, argv, o, ret_status)) {
        return false;
    }
    if (argc != 2 || (strcmp(argv[1], "fetch") != 0 && strcmp(argv[1], "watch") != 0)) {
        *ret_status = role_misuse(&USE, "expected fetch, watch, show or validate");
        return false;
    }
    o->watch = strcmp(argv[1], "watch") == 0;
    if (o->jwt != (o->token.n_audiences > 0) || (o->token.raw && !o->jwt)) {
        *ret_status =
            role_misuse(&USE, "--jwt and --audience go together: a token is for somebody");
        return false;
    }
    return true;
}

static const struct identity_client_events events = {on_state, on_notice};

static int start(struct svid_run *run, struct err *err)
{
    const struct svid_options *o = &run->options;
    struct identity_client_options options = {o->socket, o->spiffe_id, o->key};
    if (loop_signal(run->loop, SIGINT, on_signal, run, err) == -1 ||
        loop_signal(run->loop, SIGTERM, on_signal, run, err) == -1) {
        return -1;
    }
    run->client = identity_client_new(run->loop, &options, &events, run, err);
    if (run->client == NULL) {
        return -1;
    }
    loop_timer_init(&run->timeout, run->loop, on_timeout, run);
    if (!o->watch) {
        loop_timer_arm(&run->timeout, o->timeout_s * 1000);
    }
    return 0;
}

int svid_main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct svid_run run = {.options = {.key = IDENTITY_KEY_AGENT, .timeout_s = DEFAULT_TIMEOUT_S}};
    if (argc > 1 && strcmp(argv[1], "show") == 0) {
        return role_svid_show(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "validate") == 0) {
        return role_svid_validate(argc - 1, argv + 1);
    }
    if (!parse(argc, argv, &run.options, &run.rc)) {
        return run.rc;
    }
    (void)signal(SIGPIPE, SIG_IGN); /* lint: before any loop; a reader that went away is no crash */
    if (run.options.jwt) {
        struct role_svid_jwt_options *t = &run.options.token;
        t->watch = run.options.watch;
        t->socket = run.options.socket;
        t->spiffe_id = run.options.spiffe_id;
        t->write_dir = run.options.write_dir;
        t->timeout_s = run.options.timeout_s;
        return role_svid_jwt(t);
    }
    run.loop = loop_new(&err);
    if (run.loop == NULL) {
        say_err("", &err);
        return 1;
    }
    if (start(&run, &err) == -1) {
        say_err("", &err);
        run.rc = 2;
    } else {
        loop_run(run.loop);
        loop_timer_disarm(&run.timeout);
    }
    identity_client_free(run.client);
    loop_free(run.loop);
    return run.rc;
}
