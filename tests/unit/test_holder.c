/* The key holder: what may be asked of it, what is not answered, and what its asker believes. */
#include "asker_priv.h"
#include "holder_priv.h"

#include <openssl/err.h>
#include <poll.h>
#include <postern/ipc.h>
#include <postern/os.h>
#include <postern/x509.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ASKERS = 3, NUMBER = 7 };

/* A holder on a thread, and the other ends of its channels. */
struct world {
    struct holder holder;
    pthread_t thread;
    int fds[ASKERS];
};

static void *run(void *arg)
{
    holder_serve(arg);
    return NULL;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->holder.number = NUMBER;
    w->holder.roles = HOLDER_SERVER | HOLDER_CLIENT;
    for (size_t i = 0; i < ASKERS; i++) {
        int pair[2];
        assert_int_equal(ipc_pair(pair, NULL), 0);
        w->fds[i] = pair[0];
        w->holder.fds[w->holder.n_fds++] = pair[1];
    }
    assert_int_equal(pthread_create(&w->thread, NULL, run, &w->holder), 0);
    *state = w;
    return 0;
}

static void end(struct world *w)
{
    for (size_t i = 0; i < ASKERS; i++) {
        if (w->fds[i] != -1) {
            close(w->fds[i]);
            w->fds[i] = -1;
        }
    }
    pthread_join(w->thread, NULL);
}

static int teardown(void **state)
{
    struct world *w = *state;
    if (w->fds[ASKERS - 1] != -1) {
        end(w);
    }
    holder_keys_deinit(&w->holder.keys);
    free(w);
    return 0;
}

static void wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    assert_int_equal(poll(&p, 1, 20000), 1);
}

/* IPC_CLOSED: the holder has closed it. */
static enum ipc_outcome receive(int fd, void *ret, size_t size, size_t *ret_len)
{
    int passed = -1;
    wait_for(fd, POLLIN);
    enum ipc_outcome o = ipc_recv(fd, ret, size, ret_len, &passed);
    assert_int_equal(passed, -1);
    return o;
}

static struct holder_question question(uint32_t type)
{
    return (struct holder_question){.version = HOLDER_WIRE_VERSION, .type = type, .id = 5};
}

static struct holder_question sign_question(uint32_t key, enum away_role role)
{
    struct holder_question q = question(HOLDER_SIGN);
    q.holder = NUMBER;
    q.key = key;
    q.role = role;
    q.transcript_len = 32;
    memset(q.transcript, 'h', 32);
    return q;
}

static struct holder_made make(int fd)
{
    struct holder_question q = question(HOLDER_MAKE);
    struct holder_made made;
    size_t len = 0;
    assert_int_equal(ipc_send(fd, &q, sizeof(q), -1), IPC_OK);
    assert_int_equal(receive(fd, &made, sizeof(made), &len), IPC_OK);
    assert_int_equal(len, sizeof(made));
    assert_int_equal(made.head.result, HOLDER_DONE);
    assert_int_equal(made.head.holder, NUMBER);
    return made;
}

static struct holder_answer ask(int fd, const struct holder_question *q)
{
    struct holder_answer a;
    size_t len = 0;
    assert_int_equal(ipc_send(fd, q, sizeof(*q), -1), IPC_OK);
    assert_int_equal(receive(fd, &a, sizeof(a), &len), IPC_OK);
    assert_int_equal(len, sizeof(a));
    assert_int_equal(a.id, q->id);
    return a;
}

static bool verifies(const struct holder_made *made, const struct holder_answer *a,
                     const uint8_t *text, size_t n)
{
    EVP_PKEY *key = x509_key_of_point(made->point, NULL);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestVerifyInit(c, NULL, EVP_sha256(), NULL, key), 1);
    bool ok = EVP_DigestVerify(c, a->signature, a->len, text, n) == 1;
    EVP_MD_CTX_free(c);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return ok;
}

/* --- the holder ------------------------------------------------------------------------------- */
static struct holder_question bad(size_t i, uint32_t key)
{
    struct holder_question q = sign_question(key, AWAY_SERVER);
    switch (i) {
    case 0:
        q.version++;
        break;
    case 1:
        q.type = 0;
        break;
    case 2:
        q.type = HOLDER_REPORT + 1;
        break;
    case 3:
        q.id = 0;
        break;
    case 4:
        q.role = 2;
        break;
    case 5:
        q.transcript_len = 0;
        break;
    case 6:
        q.transcript_len = 33;
        break;
    case 7:
        q.transcript_len = 1000;
        break;
    case 8:
        q.transcript[40] = 1; /* behind the hash */
        break;
    case 9:
        q.key = 0;
        break;
    case 10:
        q.type = HOLDER_MAKE; /* with fields of others */
        break;
    default:
        q.type = HOLDER_DROP;
        break;
    }
    return q;
}

static void test_questions_that_are_none(void **state)
{
    (void)state;
    for (size_t i = 0; i <= 14; i++) {
        void *each = NULL;
        setup(&each);
        struct world *w = each;
        struct holder_made made = make(w->fds[1]);
        struct holder_question q = i < 12 ? bad(i, made.head.key) : sign_question(1, AWAY_SERVER);
        uint8_t longer[sizeof(q) + 1] = {0};
        char rest[2000];
        size_t len = 0;
        memcpy(longer, &q, sizeof(q));
        assert_int_equal(ipc_send(w->fds[0], longer,
                                  i == 12   ? sizeof(q) + 1
                                  : i == 13 ? sizeof(q) - 1
                                            : sizeof(q),
                                  i == 14 ? 0 : -1),
                         IPC_OK);
        assert_int_equal(receive(w->fds[0], rest, sizeof(rest), &len), IPC_CLOSED);
        q = sign_question(made.head.key, AWAY_SERVER); /* the others go on */
        assert_int_equal(ask(w->fds[1], &q).result, HOLDER_DONE);
        teardown(&each);
    }
}

/* What is signed is what the holder builds, and never what it is given. */
static void test_content(void **state)
{
    struct world *w = *state;
    struct holder_made made = make(w->fds[0]);
    for (enum away_role role = AWAY_SERVER; role <= AWAY_CLIENT; role++) {
        for (uint32_t n = 32; n <= 48; n += 16) {
            struct holder_question q = sign_question(made.head.key, role);
            struct away_handshake what = {.role = role, .transcript_len = n};
            uint8_t content[AWAY_HANDSHAKE_MAX];
            q.transcript_len = n;
            memset(q.transcript, 't', n);
            memset(what.transcript, 't', n);
            struct holder_answer a = ask(w->fds[0], &q);
            assert_int_equal(a.result, HOLDER_DONE);
            size_t len = away_handshake_write(&what, content);
            assert_true(verifies(&made, &a, content, len));
            assert_false(verifies(&made, &a, q.transcript, n));
            what.role = role == AWAY_SERVER ? AWAY_CLIENT : AWAY_SERVER;
            len = away_handshake_write(&what, content);
            assert_false(verifies(&made, &a, content, len));
        }
    }
}

/* It states a key and nothing else. */
static void test_request(void **state)
{
    struct world *w = *state;
    struct holder_made made = make(w->fds[0]);
    const unsigned char *p = made.request;
    uint8_t point[HOLDER_POINT_LEN];
    assert_int_equal(
        x509_csr_check((struct str){(const char *)made.request, made.request_len}, point, NULL), 0);
    assert_memory_equal(point, made.point, sizeof(point));
    X509_REQ *req = d2i_X509_REQ(NULL, &p, (long)made.request_len);
    assert_non_null(req);
    assert_int_equal(X509_NAME_entry_count(X509_REQ_get_subject_name(req)), 0);
    assert_int_equal(X509_REQ_get_attr_count(req), 0);
    X509_REQ_free(req);
    struct holder_made other = make(w->fds[0]);
    assert_memory_not_equal(other.point, made.point, sizeof(point));
}

static void test_roles(void **state)
{
    struct world *w = *state;
    struct holder_made made = make(w->fds[0]);
    end(w);
    for (enum away_role only = AWAY_SERVER; only <= AWAY_CLIENT; only++) {
        void *each = NULL;
        setup(&each);
        struct world *v = each;
        v->holder.roles = 1U << only; /* nothing was asked yet */
        made = make(v->fds[0]);
        for (enum away_role role = AWAY_SERVER; role <= AWAY_CLIENT; role++) {
            struct holder_question q = sign_question(made.head.key, role);
            struct holder_answer a = ask(v->fds[0], &q);
            assert_int_equal(a.result, role == only ? HOLDER_DONE : HOLDER_NOT_THAT_ROLE);
            assert_int_equal(a.len > 0, role == only);
        }
        teardown(&each);
    }
}

static void test_numbers(void **state)
{
    struct world *w = *state;
    struct holder_made made = make(w->fds[0]);
    struct holder_question q = sign_question(made.head.key + 1, AWAY_SERVER);
    assert_int_equal(ask(w->fds[0], &q).result, HOLDER_NO_KEY);
    q.key = made.head.key;
    q.holder = NUMBER - 1; /* of a holder of before */
    assert_int_equal(ask(w->fds[0], &q).result, HOLDER_NO_KEY);
    q.holder = NUMBER;
    assert_int_equal(ask(w->fds[0], &q).result, HOLDER_DONE);
    struct holder_question drop = question(HOLDER_DROP);
    drop.key = made.head.key;
    drop.holder = NUMBER - 1;
    assert_int_equal(ipc_send(w->fds[0], &drop, sizeof(drop), -1), IPC_OK);
    assert_int_equal(ask(w->fds[0], &q).result, HOLDER_DONE);
    drop.holder = NUMBER;
    assert_int_equal(ipc_send(w->fds[0], &drop, sizeof(drop), -1), IPC_OK);
    assert_int_equal(ask(w->fds[0], &q).result, HOLDER_NO_KEY);
}

static void test_keys_bounded(void **state)
{
    struct world *w = *state;
    uint32_t first = make(w->fds[0]).head.key, last = first;
    for (int i = 0; i < HOLDER_KEYS_MAX; i++) {
        last = make(w->fds[0]).head.key;
    }
    struct holder_question q = sign_question(first, AWAY_SERVER);
    assert_int_equal(ask(w->fds[0], &q).result, HOLDER_NO_KEY);
    for (q.key = first + 1; q.key <= last; q.key++) {
        assert_int_equal(ask(w->fds[0], &q).result, HOLDER_DONE);
    }
    struct holder_question r = question(HOLDER_REPORT);
    struct holder_report report;
    size_t len = 0;
    assert_int_equal(ipc_send(w->fds[0], &r, sizeof(r), -1), IPC_OK);
    assert_int_equal(receive(w->fds[0], &report, sizeof(report), &len), IPC_OK);
    assert_int_equal(len, sizeof(report));
    assert_int_equal(report.n_keys, HOLDER_KEYS_MAX);
    assert_int_equal(report.signatures, HOLDER_KEYS_MAX);
}

/* Who asks without end and never listens holds up nobody but himself. */
static void test_flood(void **state)
{
    struct world *w = *state;
    struct holder_made made = make(w->fds[0]);
    struct holder_question q = sign_question(made.head.key, AWAY_SERVER);
    for (int i = 0; i < 5000; i++) {
        if (ipc_send(w->fds[0], &q, sizeof(q), -1) == IPC_AGAIN) {
            wait_for(w->fds[0], POLLOUT); /* what nobody takes is dropped: it reads on */
        }
        if (i % 500 == 0) {
            assert_int_equal(ask(w->fds[1], &q).result, HOLDER_DONE);
        }
    }
    assert_int_equal(ask(w->fds[2], &q).result, HOLDER_DONE);
}

/* --- the asker -------------------------------------------------------------------------------- */
static struct holder_asker *asker_of(int *fds, size_t n)
{
    struct holder_asker *a = holder_asker_new(fds, n, NULL);
    assert_non_null(a);
    for (size_t i = 0; i < n; i++) {
        fds[i] = -1;
    }
    return a;
}

static void test_signs_through_openssl(void **state)
{
    struct world *w = *state;
    struct holder_asker *a = asker_of(w->fds, ASKERS);
    struct away_keys *keys = away_keys_new(NULL);
    struct holder_question q = {.type = HOLDER_MAKE};
    struct holder_made made;
    struct away_handshake what = {.role = AWAY_CLIENT, .transcript_len = 48};
    uint8_t content[AWAY_HANDSHAKE_MAX], sig[AWAY_SIGNATURE_MAX];
    size_t n = away_handshake_write(&what, content), len = sizeof(sig);
    assert_int_equal(holder_asker_ask(a, 20000, &q, &made, sizeof(made), NULL), 0);
    EVP_PKEY *key = holder_asker_key(a, keys, &made, NULL);
    assert_non_null(key);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestSignInit(c, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestSign(c, sig, &len, content, n), 1);
    EVP_MD_CTX_free(c);
    struct holder_answer answer = {.len = (uint32_t)len};
    memcpy(answer.signature, sig, len);
    assert_true(verifies(&made, &answer, content, n));
    struct holder_question sign = sign_question(made.head.key, AWAY_SERVER);
    assert_int_equal(holder_asker_ask(a, 20000, &sign, &answer, sizeof(answer), NULL), 0);
    assert_int_equal(answer.result, HOLDER_DONE);
    EVP_PKEY_free(key); /* dropped there; one after the other on a channel, and all were asked */
    for (size_t i = 0; i < ASKERS; i++) {
        sign = sign_question(made.head.key, AWAY_SERVER);
        assert_int_equal(holder_asker_ask(a, 20000, &sign, &answer, sizeof(answer), NULL), 0);
    }
    assert_int_equal(answer.result, HOLDER_NO_KEY);
    holder_asker_free(a);
    away_keys_free(keys);
    pthread_join(w->thread, NULL);
}

static void reply(int fd, uint64_t id, size_t size, uint32_t version)
{
    struct holder_made m = {.head = {.version = version, .result = HOLDER_DONE, .id = id}};
    assert_int_equal(ipc_send(fd, &m, size, -1), IPC_OK);
}

/* What another side could answer. */
static void test_bad_answers(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        int pair[2];
        struct holder_question q = question(HOLDER_SIGN);
        struct holder_answer a;
        struct err err = ERR_INIT;
        assert_int_equal(ipc_pair(pair, NULL), 0);
        struct holder_asker *asker = asker_of(&pair[0], 1);
        switch (i) {
        case 0: /* of another size */
            reply(pair[1], 1, sizeof(struct holder_made), HOLDER_WIRE_VERSION);
            break;
        case 1:
            assert_int_equal(ipc_send(pair[1], "x", 1, -1), IPC_OK);
            break;
        case 2:
            reply(pair[1], 1, sizeof(a), HOLDER_WIRE_VERSION + 1);
            break;
        case 3: /* with a descriptor */
            assert_int_equal(ipc_send(pair[1], &a, sizeof(a), 0), IPC_OK);
            break;
        default:
            close(pair[1]);
            break;
        }
        assert_int_equal(holder_asker_ask(asker, 20000, &q, &a, sizeof(a), &err), -1);
        assert_int_equal(err.code, ERR_UNAVAILABLE);
        assert_int_equal(asker->channels[0].fd, -1);
        assert_int_equal(holder_asker_ask(asker, 20000, &q, &a, sizeof(a), &err), -1);
        holder_asker_free(asker);
        if (i < 4) {
            close(pair[1]);
        }
    }
}

/* To an earlier question, whose asker has given up. */
static void test_late_answer(void **state)
{
    (void)state;
    int pair[2];
    struct holder_question q = question(HOLDER_SIGN);
    struct holder_answer a = {.id = 0};
    assert_int_equal(ipc_pair(pair, NULL), 0);
    struct holder_asker *asker = asker_of(&pair[0], 1);
    assert_int_equal(holder_asker_ask(asker, 1, &q, &a, sizeof(a), NULL), -1);
    assert_int_equal(asker->timeouts, 1);
    reply(pair[1], 1, sizeof(struct holder_made), HOLDER_WIRE_VERSION);
    reply(pair[1], 2, sizeof(a), HOLDER_WIRE_VERSION);
    assert_int_equal(holder_asker_ask(asker, 20000, &q, &a, sizeof(a), NULL), 0);
    assert_int_equal(a.id, 2);
    holder_asker_free(asker);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_questions_that_are_none),
        cmocka_unit_test_setup_teardown(test_content, setup, teardown),
        cmocka_unit_test_setup_teardown(test_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_roles, setup, teardown),
        cmocka_unit_test_setup_teardown(test_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keys_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
        cmocka_unit_test_setup_teardown(test_signs_through_openssl, setup, teardown),
        cmocka_unit_test(test_bad_answers),
        cmocka_unit_test(test_late_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
