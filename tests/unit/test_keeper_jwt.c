/*
 * keeper: tokens. The real process, as in test_keeper.c; docs/privilege-separation.md lists the
 * attack cases marked KJ.
 */
#include "keeper_process.h"

#include <postern/agent_ipc.h>
#include <postern/jwt.h>
#include <postern/mem.h>
#include <postern/os.h>

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t attest_pidfd(struct keeper_process *k, uint32_t uid, uint64_t age_ms, int pidfd)
{
    static struct agent_msg_caller c;
    uint64_t handle = k->next_handle++;

    agent_ipc_init(&c, AGENT_MSG_ATTESTED, 0);
    c.handle = handle;
    c.uid = uid;
    c.gid = 9;
    c.pid = 1;
    c.read_ms = os_now_ms() - age_ms;
    c.own_view = true;
    keeper_send(k->attestor, &c, pidfd);
    close(pidfd);
    return handle;
}

static uint64_t attest(struct keeper_process *k, uint32_t uid)
{
    return attest_pidfd(k, uid, 0, (int)syscall(SYS_pidfd_open, getpid(), 0));
}

static void ask_init(struct agent_msg_jwt_sign *m, const struct keeper_process *k, uint64_t handle,
                     uint32_t entry, const struct str *audiences, uint32_t n)
{
    agent_ipc_init(m, AGENT_MSG_JWT_SIGN, 79);
    m->handle = handle;
    m->generation = k->generation;
    m->entry = entry;
    m->n_audiences = n;
    for (uint32_t i = 0; i < n; i++) {
        m->lens[i] = (uint16_t)audiences[i].n;
        memcpy(m->audiences + m->audiences_len, audiences[i].p, audiences[i].n);
        m->audiences_len += (uint32_t)audiences[i].n;
    }
}

static const struct agent_msg_jwt_signed *ask(struct keeper_process *k,
                                              const struct agent_msg_jwt_sign *m)
{
    keeper_send(k->service, m, -1);
    keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_JWT_SIGNED);
    assert_int_equal(keeper_in.head.request_id, 79);
    assert_int_equal(keeper_in.jwt_signed.handle, m->handle);
    if (keeper_in.jwt_signed.outcome != AGENT_OK) {
        assert_int_equal(keeper_in.jwt_signed.token_len, 0);
    }
    return &keeper_in.jwt_signed;
}

static const struct agent_msg_jwt_signed *sign(struct keeper_process *k, uint64_t handle,
                                               uint32_t entry, struct str audience)
{
    static struct agent_msg_jwt_sign m;

    ask_init(&m, k, handle, entry, &audience, 1);
    return ask(k, &m);
}

static struct jwt_keys *get_keys(struct keeper_process *k, uint64_t *ret_generation)
{
    struct agent_msg_ask m;
    struct jwt_keys *keys = NULL;

    agent_ipc_init(&m, AGENT_MSG_JWKS_GET, 80);
    keeper_send(k->service, &m, -1);
    keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_JWKS);
    assert_int_equal(keeper_in.head.request_id, 80);
    assert_int_equal(
        jwt_keys_parse((struct str){(const char *)keeper_in.jwks.jwks, keeper_in.jwks.jwks_len},
                       false, &keys, NULL),
        0);
    *ret_generation = keeper_in.jwks.generation;
    return keys;
}

/* The answer that came last, judged by those keys. */
static struct jwt_token *judge(const struct jwt_keys *keys, struct str audience)
{
    const struct jwt_bundle bundle = {STR_LIT("example.org"), keys};
    struct jwt_token *t = NULL;
    struct err err = ERR_INIT;
    struct str text = {(const char *)keeper_in.jwt_signed.token, keeper_in.jwt_signed.token_len};

    if (jwt_verify(text, &bundle, 1, audience, os_wall_s(), &t, &err) == -1) {
        fail_msg("%s", err.what);
    }
    return t;
}

/* --- the service asks for what is not the caller's -------------------------------------------- */
static void test_refusals(void **state)
{
    struct keeper_process *k = *state;
    static struct agent_msg_jwt_sign m;
    const struct str a = STR_LIT("orders");
    uint64_t own = attest(k, 5000), stranger = attest(k, 7777);
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    uint64_t stale = attest_pidfd(k, 5000, AGENT_FACTS_MAX_AGE_MS + 5000, pidfd);
    pid_t pid = fork();
    uint64_t dead;

    assert_int_not_equal(pid, -1);
    if (pid == 0) {
        for (;;) {
            pause();
        }
    }
    pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    dead = attest_pidfd(k, 5000, 0, pidfd);

    assert_int_equal(sign(k, 999999, 0, a)->outcome, AGENT_NO_HANDLE);
    assert_int_equal(sign(k, 0, 0, a)->outcome, AGENT_NO_HANDLE);
    assert_int_equal(sign(k, dead, 0, a)->outcome, AGENT_NO_HANDLE);
    assert_int_equal(sign(k, stale, 0, a)->outcome, AGENT_STALE_FACTS);
    assert_int_equal(sign(k, own, 2, a)->outcome, AGENT_NOT_ENTITLED);
    assert_int_equal(sign(k, own, 3, a)->outcome, AGENT_NOT_ENTITLED);
    assert_int_equal(sign(k, own, 4, a)->outcome, AGENT_NOT_ENTITLED);
    assert_int_equal(sign(k, own, UINT32_MAX, a)->outcome, AGENT_NOT_ENTITLED);
    assert_int_equal(sign(k, stranger, 0, a)->outcome, AGENT_NOT_ENTITLED);
    ask_init(&m, k, own, 0, &a, 1);
    m.generation--;
    assert_int_equal(ask(k, &m)->outcome, AGENT_STALE_GENERATION);
    assert_int_equal(sign(k, own, 0, a)->outcome, AGENT_OK);
    assert_true(keeper_still_runs(k));
}

static void test_audiences(void **state)
{
    struct keeper_process *k = *state;
    static struct agent_msg_jwt_sign m;
    static char longer[JWT_AUDIENCE_MAX + 1];
    const struct str one = STR_LIT("orders");
    uint64_t own = attest(k, 5000);
    static const char *const bad[] = {"", "a\"\n", "\x7f", "\xff", "\xed\xa0\x80"};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(sign(k, own, 0, str_of(bad[i]))->outcome, AGENT_BAD_AUDIENCE);
    }
    assert_int_equal(sign(k, own, 0, (struct str){"a\0b", 3})->outcome, AGENT_BAD_AUDIENCE);
    memset(longer, 'a', sizeof(longer));
    assert_int_equal(sign(k, own, 0, (struct str){longer, sizeof(longer)})->outcome,
                     AGENT_BAD_AUDIENCE);
    ask_init(&m, k, own, 0, &one, 0);
    assert_int_equal(ask(k, &m)->outcome, AGENT_BAD_AUDIENCE);
    /* lengths that don't fill their bytes, and that go past them */
    ask_init(&m, k, own, 0, &one, 1);
    m.lens[0]--;
    assert_int_equal(ask(k, &m)->outcome, AGENT_BAD_AUDIENCE);
    ask_init(&m, k, own, 0, &one, 1);
    m.lens[0] = UINT16_MAX;
    assert_int_equal(ask(k, &m)->outcome, AGENT_BAD_AUDIENCE);
    ask_init(&m, k, own, 0, &one, 1);
    m.n_audiences = 2;
    m.lens[1] = 1;
    assert_int_equal(ask(k, &m)->outcome, AGENT_BAD_AUDIENCE);
    /* past the arrays: no message at all */
    ask_init(&m, k, own, 0, &one, 1);
    m.n_audiences = AGENT_AUDIENCES_MAX + 1;
    keeper_send(k->service, &m, -1);
    while (keeper_recv(k->service, AGENT_WAY_KEEPER_SERVICE) == IPC_OK) {
        assert_int_equal(keeper_in.head.type, AGENT_MSG_CHANGED);
    }
    assert_true(keeper_still_runs(k));
    keeper_new_service(k);
    ask_init(&m, k, own, 0, &one, 1);
    m.audiences_len = AGENT_AUDIENCES_BYTES + 1;
    keeper_send(k->service, &m, -1);
    while (keeper_recv(k->service, AGENT_WAY_KEEPER_SERVICE) == IPC_OK) {
        assert_int_equal(keeper_in.head.type, AGENT_MSG_CHANGED);
    }
    assert_true(keeper_still_runs(k));
}

static void test_quarantine(void **state)
{
    struct keeper_process *k = *state;
    uint64_t own = attest(k, 5000);

    keeper_deny(k, 7, AGENT_DENY_SPIFFE_ID, "spiffe://example.org/first");
    assert_int_equal(sign(k, own, 0, STR_LIT("a"))->outcome, AGENT_QUARANTINED);
    assert_int_equal(sign(k, own, 1, STR_LIT("a"))->outcome, AGENT_OK);
    keeper_deny(k, 8, 0, NULL);
    assert_int_equal(sign(k, own, 0, STR_LIT("a"))->outcome, AGENT_OK);
}

/* Signatures of both kinds come out of one bucket. */
static void test_flood(void **state)
{
    struct keeper_process *k = *state;
    uint64_t own = attest(k, 5000), other = attest(k, 5001);
    int n = 0;

    while (sign(k, own, 0, STR_LIT("a"))->outcome == AGENT_OK) {
        assert_true(n++ < 2000);
    }
    assert_int_equal(keeper_in.jwt_signed.outcome, AGENT_LIMITED);
    assert_int_equal(sign(k, other, 2, STR_LIT("a"))->outcome, AGENT_OK);
}

/* --- what is signed --------------------------------------------------------------------------- */
static void test_token(void **state)
{
    struct keeper_process *k = *state;
    static struct agent_msg_jwt_sign m;
    const struct str two[] = {STR_LIT("a \"b\\"), STR_LIT("\xc3\xa4")};
    uint64_t own = attest(k, 5000), generation = 0;
    struct jwt_keys *keys = get_keys(k, &generation);
    char jti[2][64];

    assert_int_equal(generation, 1);
    assert_int_equal(jwt_keys_count(keys), 1);
    assert_string_equal(jwt_keys_kind(keys, 0), "EC P-256");
    for (int i = 0; i < 2; i++) {
        ask_init(&m, k, own, 1, two, 2);
        assert_int_equal(ask(k, &m)->outcome, AGENT_OK);
        struct jwt_token *t = judge(keys, two[1]);
        assert_string_equal(t->spiffe_id, "spiffe://example.org/second");
        assert_string_equal(t->kid, jwt_keys_kid(keys, 0));
        assert_int_equal(t->n_audiences, 2);
        assert_int_equal(t->expires_s - t->issued_s, 300);
        assert_int_equal(t->expires_s, keeper_in.jwt_signed.expires_s);
        assert_true(t->issued_s <= os_wall_s() && t->issued_s > os_wall_s() - 20);
        char *text = jwt_claims_text(t);
        const char *at = strstr(text, "\"jti\":\"");
        assert_non_null(at);
        (void)snprintf(jti[i], sizeof(jti[i]), "%.30s", at);
        free(text);
        jwt_token_free(t);
    }
    assert_string_not_equal(jti[0], jti[1]);
    jwt_keys_free(keys);
}

static struct keeper_process *start(uint32_t ttl_s, uint32_t key_ttl_s, uint32_t algorithm)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    int file = keeper_temp_file();

    k->jwt_ttl_s = ttl_s;
    k->jwt_key_ttl_s = key_ttl_s;
    k->jwt_algorithm = algorithm;
    keeper_spawn(k);
    keeper_send_state(k, file, true);
    close(file);
    keeper_place_state(k);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_READY);
    assert_true(keeper_load_entries(k)->ok);
    keeper_new_service(k);
    return k;
}

static void stop(struct keeper_process *k)
{
    void *state = k;

    keeper_teardown(&state);
}

static void test_algorithms(void **state)
{
    static const struct {
        uint32_t algorithm;
        enum jwt_alg alg;
    } rows[] = {{AGENT_JWT_ES384, JWT_ES384}, {AGENT_JWT_RS256, JWT_RS256}};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct keeper_process *k = start(0, 0, rows[i].algorithm);
        uint64_t generation = 0;
        struct jwt_keys *keys = get_keys(k, &generation);

        assert_int_equal(sign(k, attest(k, 5000), 0, STR_LIT("a"))->outcome, AGENT_OK);
        struct jwt_token *t = judge(keys, STR_LIT("a"));
        assert_int_equal(t->alg, rows[i].alg);
        jwt_token_free(t);
        jwt_keys_free(keys);
        stop(k);
    }
}

/* The next push to the service; the keeper writes its state meanwhile. */
static void next_changed(struct keeper_process *k)
{
    for (;;) {
        struct pollfd p[] = {{.fd = k->control, .events = POLLIN},
                             {.fd = k->service, .events = POLLIN}};

        assert_true(poll(p, 2, KEEPER_WAIT_MS) > 0);
        if (p[0].revents != 0) {
            keeper_serve_state(k);
        } else if (keeper_recv(k->service, AGENT_WAY_KEEPER_SERVICE) == IPC_OK) {
            assert_int_equal(keeper_in.head.type, AGENT_MSG_CHANGED);
            return;
        }
    }
}

/* Keys that live three seconds: there are always tokens again, by keys that are told, and none ends
 * after its key. That a key is told before it signs: test_keeper_jwt_schedule.c. */
static void test_rotation(void **state)
{
    struct keeper_process *k = start(2, 3, AGENT_JWT_ES256);
    uint64_t generation = 0, until_ms = os_now_ms() + KEEPER_WAIT_MS;
    char last[JWT_KID_SIZE] = "";
    int n_keys = 0;

    (void)state;
    while (n_keys < 3) {
        uint32_t outcome = sign(k, attest(k, 5000), 0, STR_LIT("a"))->outcome;

        assert_true(os_now_ms() < until_ms);
        if (outcome == AGENT_OK) {
            static union agent_msg token;
            struct jwt_keys *keys;
            struct jwt_token *t;

            token = keeper_in;
            keys = get_keys(k, &generation);
            keeper_in = token;
            t = judge(keys, STR_LIT("a"));
            assert_true(t->expires_s - t->issued_s <= 3);
            n_keys += strcmp(t->kid, last) != 0;
            (void)snprintf(last, sizeof(last), "%s", t->kid);
            jwt_token_free(t);
            jwt_keys_free(keys);
        } else {
            assert_int_equal(outcome, AGENT_UNAVAILABLE); /* between the end and the next one */
        }
        next_changed(k);
    }
    stop(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refusals, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_audiences, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_quarantine, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_flood, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_token, keeper_setup, keeper_teardown),
        cmocka_unit_test(test_algorithms),
        cmocka_unit_test(test_rotation),
    };

    jwt_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
