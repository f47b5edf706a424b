/*
 * keeper: the real process, with the test in the place of supervisor, attestor and service.
 * docs/privilege-separation.md lists the attack cases marked K.
 */
#include "keeper_process.h"

#include <postern/agent_ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/proc.h>
#include <postern/x509.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static pid_t start_sleeper(int *ret_pidfd)
{
    pid_t pid = fork();

    assert_int_not_equal(pid, -1);
    if (pid == 0) {
        for (;;) {
            pause();
        }
    }
    *ret_pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return pid;
}

static void tell_caller(struct keeper_process *k, enum agent_msg_type type, uint64_t handle,
                        uint32_t uid, const char *path, uint64_t age_ms, int pidfd)
{
    static struct agent_msg_caller c;

    agent_ipc_init(&c, type, 0);
    c.handle = handle;
    c.uid = uid;
    c.gid = 9;
    c.pid = 1;
    c.read_ms = os_now_ms() - age_ms;
    c.own_view = true;
    assert_true(agent_ipc_put(c.path, AGENT_PATH_MAX, &c.path_len, str_of(path)));
    keeper_send(k->attestor, &c, pidfd);
}

/* The same bytes, once as a group, once as a path. */
static void tell_group_or_path(struct keeper_process *k, uint64_t handle, bool group)
{
    static struct agent_msg_caller c;
    static const char path[] = "/run";

    agent_ipc_init(&c, AGENT_MSG_UPDATED, 0);
    c.handle = handle;
    c.uid = 5000;
    c.gid = 9;
    c.pid = 1;
    c.read_ms = os_now_ms();
    c.own_view = true;
    if (group) {
        c.n_groups = 1;
        memcpy(c.groups, path, sizeof(c.groups[0]));
    } else {
        assert_true(agent_ipc_put(c.path, AGENT_PATH_MAX, &c.path_len, str_of(path)));
    }
    keeper_send(k->attestor, &c, -1);
}

/* A caller that lives as long as this test. */
static uint64_t attest(struct keeper_process *k, uint32_t uid)
{
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    uint64_t handle = k->next_handle++;

    tell_caller(k, AGENT_MSG_ATTESTED, handle, uid, NULL, 0, pidfd);
    close(pidfd);
    return handle;
}

static const struct agent_msg_identity *identity(struct keeper_process *k, uint64_t handle,
                                                 uint32_t position)
{
    struct agent_msg_identity_get m;

    agent_ipc_init(&m, AGENT_MSG_IDENTITY_GET, 77);
    m.handle = handle;
    m.position = position;
    keeper_send(k->service, &m, -1);
    keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_IDENTITY);
    assert_int_equal(keeper_in.head.request_id, 77);
    assert_int_equal(keeper_in.identity.handle, handle);
    return &keeper_in.identity;
}

static void good_point(uint8_t point[AGENT_POINT_SIZE])
{
    EVP_PKEY *key = x509_key_new(NULL);

    assert_non_null(key);
    assert_int_equal(x509_key_point(key, point, NULL), 0);
    EVP_PKEY_free(key);
}

static const struct agent_msg_issued *issue(struct keeper_process *k, uint64_t handle,
                                            uint64_t generation, uint32_t entry,
                                            const uint8_t *point)
{
    struct agent_msg_issue m;

    agent_ipc_init(&m, AGENT_MSG_ISSUE, 78);
    m.handle = handle;
    m.generation = generation;
    m.entry = entry;
    memcpy(m.point, point, sizeof(m.point));
    keeper_send(k->service, &m, -1);
    keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_ISSUED);
    assert_int_equal(keeper_in.head.request_id, 78);
    if (keeper_in.issued.outcome != AGENT_OK) {
        assert_int_equal(keeper_in.issued.leaf_len, 0);
    }
    return &keeper_in.issued;
}

/* --- the service asks for what is not the caller's -------------------------------------------- */
static void test_refusals(void **state)
{
    struct keeper_process *k = *state;
    uint8_t point[AGENT_POINT_SIZE], off[AGENT_POINT_SIZE], none[AGENT_POINT_SIZE] = {0};
    uint64_t own, stranger;

    good_point(point);
    memcpy(off, point, sizeof(off));
    off[64] ^= 1;
    own = attest(k, 5000);
    stranger = attest(k, 7777);
    const struct {
        const char *what;
        uint64_t handle, generation;
        uint32_t entry;
        const uint8_t *point;
        enum agent_outcome outcome;
    } cases[] = {
        {"a forged handle", 999999, k->generation, 0, point, AGENT_NO_HANDLE},
        {"handle 0", 0, k->generation, 0, point, AGENT_NO_HANDLE},
        {"an entry of another caller", own, k->generation, 2, point, AGENT_NOT_ENTITLED},
        {"an entry whose path is not the caller's", own, k->generation, 3, point,
         AGENT_NOT_ENTITLED},
        {"an entry past the end", own, k->generation, 4, point, AGENT_NOT_ENTITLED},
        {"an entry far past the end", own, k->generation, UINT32_MAX, point, AGENT_NOT_ENTITLED},
        {"a caller without any entry", stranger, k->generation, 0, point, AGENT_NOT_ENTITLED},
        {"an older generation", own, k->generation - 1, 0, point, AGENT_STALE_GENERATION},
        {"a generation to come", own, k->generation + 1, 0, point, AGENT_STALE_GENERATION},
        {"a point off the curve", own, k->generation, 0, off, AGENT_BAD_KEY},
        {"no point at all", own, k->generation, 0, none, AGENT_BAD_KEY},
        {"the right one", own, k->generation, 0, point, AGENT_OK},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct agent_msg_issued *a =
            issue(k, cases[i].handle, cases[i].generation, cases[i].entry, cases[i].point);

        if (a->outcome != cases[i].outcome) {
            fail_msg("%s: %s, expected %s", cases[i].what, agent_outcome_name(a->outcome),
                     agent_outcome_name(cases[i].outcome));
        }
    }
    assert_int_equal(identity(k, 999999, 0)->outcome, AGENT_NO_HANDLE);
    assert_int_equal(identity(k, stranger, 0)->outcome, AGENT_NOT_ENTITLED);
    assert_int_equal(identity(k, own, 2)->outcome, AGENT_NOT_ENTITLED);
    assert_int_equal(identity(k, own, UINT32_MAX)->outcome, AGENT_NOT_ENTITLED);
}

static void test_ended_process(void **state)
{
    struct keeper_process *k = *state;
    uint8_t point[AGENT_POINT_SIZE];
    int pidfd;
    pid_t pid = start_sleeper(&pidfd);
    struct pollfd p = {.fd = pidfd, .events = POLLIN};

    good_point(point);
    tell_caller(k, AGENT_MSG_ATTESTED, 500, 5000, NULL, 0, pidfd);
    assert_int_equal(issue(k, 500, k->generation, 0, point)->outcome, AGENT_OK);
    kill(pid, SIGKILL);
    assert_int_equal(poll(&p, 1, KEEPER_WAIT_MS), 1);
    /* the attestor has said nothing yet; and not yet reaped either */
    assert_int_equal(issue(k, 500, k->generation, 0, point)->outcome, AGENT_NO_HANDLE);
    waitpid(pid, NULL, 0);
    assert_int_equal(issue(k, 500, k->generation, 0, point)->outcome, AGENT_NO_HANDLE);
    assert_int_equal(identity(k, 500, 0)->outcome, AGENT_NO_HANDLE);
    close(pidfd);
}

static void test_gone_and_replay(void **state)
{
    struct keeper_process *k = *state;
    struct agent_msg_handle gone;
    uint8_t point[AGENT_POINT_SIZE];
    uint64_t handle = attest(k, 5000);

    good_point(point);
    assert_int_equal(issue(k, handle, k->generation, 0, point)->outcome, AGENT_OK);
    agent_ipc_init(&gone, AGENT_MSG_GONE, 0);
    gone.handle = handle;
    keeper_send(k->attestor, &gone, -1);
    /* the same message once more: GONE was queued before it, so it is known */
    assert_int_equal(issue(k, handle, k->generation, 0, point)->outcome, AGENT_NO_HANDLE);
}

static void test_facts_that_change(void **state)
{
    struct keeper_process *k = *state;
    uint8_t point[AGENT_POINT_SIZE];
    uint64_t handle = attest(k, 5000), facts;

    good_point(point);
    facts = identity(k, handle, 0)->facts;
    /* it ran the right program meanwhile, then became another user */
    tell_caller(k, AGENT_MSG_UPDATED, handle, 5000, "/usr/bin/right", 0, -1);
    assert_int_equal(identity(k, handle, 2)->outcome, AGENT_OK);
    assert_int_equal(keeper_in.identity.entry, 3);
    assert_int_not_equal(keeper_in.identity.facts, facts);
    assert_int_equal(issue(k, handle, k->generation, 3, point)->outcome, AGENT_OK);
    tell_caller(k, AGENT_MSG_UPDATED, handle, 5000, "/usr/bin/right/not", 0, -1);
    assert_int_equal(issue(k, handle, k->generation, 3, point)->outcome, AGENT_NOT_ENTITLED);
    tell_caller(k, AGENT_MSG_UPDATED, handle, 5001, NULL, 0, -1);
    assert_int_equal(issue(k, handle, k->generation, 0, point)->outcome, AGENT_NOT_ENTITLED);
    assert_int_equal(issue(k, handle, k->generation, 2, point)->outcome, AGENT_OK);
    /* another group, and no path: told as the same facts when their bytes were the same */
    tell_group_or_path(k, handle, true);
    facts = identity(k, handle, 0)->facts;
    tell_group_or_path(k, handle, false);
    assert_int_not_equal(identity(k, handle, 0)->facts, facts);
    /* and nobody looked for a while */
    tell_caller(k, AGENT_MSG_UPDATED, handle, 5001, NULL, AGENT_FACTS_MAX_AGE_MS + 1000, -1);
    assert_int_equal(issue(k, handle, k->generation, 2, point)->outcome, AGENT_STALE_FACTS);
    assert_int_equal(identity(k, handle, 0)->outcome, AGENT_STALE_FACTS);
    tell_caller(k, AGENT_MSG_UPDATED, handle, 5001, NULL, 0, -1);
    assert_int_equal(issue(k, handle, k->generation, 2, point)->outcome, AGENT_OK);
}

static void test_flood(void **state)
{
    struct keeper_process *k = *state;
    uint8_t point[AGENT_POINT_SIZE];
    uint64_t handle = attest(k, 5000);
    unsigned n = 0;

    good_point(point);
    while (issue(k, handle, k->generation, 0, point)->outcome == AGENT_OK) {
        n++;
        assert_in_range(n, 0, 1000);
    }
    assert_int_equal(keeper_in.issued.outcome, AGENT_LIMITED);
    assert_in_range(n, KEEPER_ISSUE_BURST, 1000);
    /* another uid has a bucket of its own */
    assert_int_equal(issue(k, attest(k, 5001), k->generation, 2, point)->outcome, AGENT_OK);
}

/* A service that asks and never reads must not hold the keeper up, or grow it. */
static void test_deaf_service(void **state)
{
    struct keeper_process *k = *state;
    struct agent_msg_ask m;
    unsigned n = 0;

    agent_ipc_init(&m, AGENT_MSG_BUNDLE_GET, 1);
    for (;;) {
        struct pollfd p = {.fd = k->service, .events = POLLOUT};
        enum ipc_outcome o = agent_ipc_send(k->service, &m, -1);

        if (o == IPC_AGAIN && poll(&p, 1, 300) == 0) {
            break; /* both queues are full: the keeper has stopped reading */
        }
        assert_true(o == IPC_OK || o == IPC_AGAIN);
        assert_in_range(++n, 0, 100000);
    }
    assert_true(keeper_load_entries(k)->ok); /* it still listens to others */
    for (unsigned got = 0; got < 100; got++) {
        keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_BUNDLE);
    }
}

/* --- the service breaks the protocol ---------------------------------------------------------- */
struct raw {
    const char *what;
    uint32_t type, size;
    size_t len;
    bool with_fd;
};

static void test_bad_messages(void **state)
{
    struct keeper_process *k = *state;
    static const struct raw cases[] = {
        {"empty head", 0, 0, sizeof(struct agent_msg_head), false},
        {"one byte", 0, 0, 1, false},
        {"unknown type", AGENT_N_MSGS, 16, 16, false},
        {"huge type", UINT32_MAX, 16, 16, false},
        {"a short issue", AGENT_MSG_ISSUE, sizeof(struct agent_msg_issue),
         sizeof(struct agent_msg_issue) - 1, false},
        {"a long issue", AGENT_MSG_ISSUE, sizeof(struct agent_msg_issue),
         sizeof(struct agent_msg_issue) + 1, false},
        {"a size that lies", AGENT_MSG_ISSUE, sizeof(struct agent_msg_issue) + 8,
         sizeof(struct agent_msg_issue), false},
        {"longer than any", AGENT_MSG_ISSUE, sizeof(struct agent_msg_issue),
         sizeof(union agent_msg) + 100, false},
        {"a descriptor", AGENT_MSG_ISSUE, sizeof(struct agent_msg_issue),
         sizeof(struct agent_msg_issue), true},
        {"what only the attestor says", AGENT_MSG_UPDATED, sizeof(struct agent_msg_caller),
         sizeof(struct agent_msg_caller), false},
        {"attestation itself", AGENT_MSG_ATTESTED, sizeof(struct agent_msg_caller),
         sizeof(struct agent_msg_caller), true},
        {"what only the supervisor says", AGENT_MSG_ENTRY, sizeof(struct agent_msg_entry),
         sizeof(struct agent_msg_entry), false},
        {"an order of root's", AGENT_MSG_CA_ORDER, sizeof(struct agent_msg_ca_order),
         sizeof(struct agent_msg_ca_order), false},
        {"a state file", AGENT_MSG_STATE_FILE, sizeof(struct agent_msg_state),
         sizeof(struct agent_msg_state), true},
        {"a passphrase", AGENT_MSG_KEY_SOURCE, sizeof(struct agent_msg_key_source),
         sizeof(struct agent_msg_key_source), true},
        {"another authority", AGENT_MSG_CA_FILE, sizeof(struct agent_msg_ca_file),
         sizeof(struct agent_msg_ca_file), true},
        {"an answer", AGENT_MSG_ISSUED, sizeof(struct agent_msg_issued),
         sizeof(struct agent_msg_issued), false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static uint8_t bytes[sizeof(union agent_msg) + 200];
        struct agent_msg_head head = {.type = cases[i].type, .size = cases[i].size};
        enum ipc_outcome o;

        memset(bytes, 0, sizeof(bytes));
        memcpy(bytes, &head, cases[i].len < sizeof(head) ? cases[i].len : sizeof(head));
        assert_int_equal(
            ipc_send(k->service, bytes, cases[i].len, cases[i].with_fd ? STDIN_FILENO : -1),
            IPC_OK);
        while ((o = keeper_recv(k->service, AGENT_WAY_KEEPER_SERVICE)) == IPC_OK) {
            assert_int_equal(keeper_in.head.type, AGENT_MSG_CHANGED);
        }
        if (o != IPC_CLOSED || !keeper_still_runs(k)) {
            fail_msg("%s: the channel was not closed, or the keeper ended", cases[i].what);
        }
        keeper_new_service(k);
        assert_int_equal(identity(k, attest(k, 5000), 0)->outcome, AGENT_OK);
    }
}

/* --- good ways -------------------------------------------------------------------------------- */
static void test_listing(void **state)
{
    struct keeper_process *k = *state;
    uint64_t handle = attest(k, 5000);
    const struct agent_msg_identity *a = identity(k, handle, 0);

    assert_int_equal(a->outcome, AGENT_OK);
    assert_int_equal(a->total, 2);
    assert_int_equal(a->entry, 0);
    assert_int_equal(a->ttl_s, 600);
    assert_int_equal(a->n_dns_names, 1);
    assert_int_equal(a->generation, k->generation);
    assert_memory_equal(a->spiffe_id, "spiffe://example.org/first", a->spiffe_id_len);
    assert_memory_equal(a->hint, "hinted", a->hint_len);
    a = identity(k, handle, 1);
    assert_int_equal(a->entry, 1);
    assert_memory_equal(a->spiffe_id, "spiffe://example.org/second", a->spiffe_id_len);
}

/* A leaf that came last, judged against the bundle. */
static void verify_issued(struct keeper_process *k, const char *id, int64_t ret_ends[2])
{
    struct agent_msg_issued issued = keeper_in.issued;
    struct agent_msg_ask ask;
    struct x509_trust *trust = x509_trust_new();
    struct x509_peer peer;
    X509 *leaf;
    STACK_OF(X509) * chain;

    agent_ipc_init(&ask, AGENT_MSG_BUNDLE_GET, 5);
    keeper_send(k->service, &ask, -1);
    keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_BUNDLE);
    assert_int_equal(
        x509_trust_add(trust, STR_LIT("example.org"),
                       (struct str){(char *)keeper_in.bundle.roots, keeper_in.bundle.roots_len},
                       NULL),
        0);
    chain = x509_chain_from_der((struct str){(char *)issued.leaf, issued.leaf_len}, NULL);
    leaf = sk_X509_shift(chain);
    sk_X509_pop_free(chain, X509_free);
    chain = x509_chain_from_der((struct str){(char *)issued.chain, issued.chain_len}, NULL);
    assert_int_equal(x509_verify_svid(trust, leaf, chain, true, os_wall_s(), &peer, NULL), X509_OK);
    assert_string_equal(peer.id, id);
    ret_ends[0] = x509_not_after_s(leaf);
    ret_ends[1] = x509_not_after_s(sk_X509_value(chain, 0));
    X509_free(leaf);
    sk_X509_pop_free(chain, X509_free);
    x509_trust_unref(trust);
}

static void test_issued_chain(void **state)
{
    struct keeper_process *k = *state;
    uint8_t point[AGENT_POINT_SIZE];
    int64_t now_s = os_wall_s(), not_after_s, ends[2];

    good_point(point);
    assert_int_equal(issue(k, attest(k, 5000), k->generation, 1, point)->outcome, AGENT_OK);
    assert_in_range(keeper_in.issued.not_after_s, now_s + 590, now_s + 620);
    assert_in_range(keeper_in.issued.not_before_s, now_s - 15, now_s);
    not_after_s = keeper_in.issued.not_after_s;
    verify_issued(k, "spiffe://example.org/second", ends);
    assert_int_equal(ends[0], not_after_s);
}

/* The intermediate is renewed at half its life, and no leaf outlives it. */
static void test_node_renewal(void **state)
{
    struct keeper_process *k = mem_must_new(struct keeper_process);
    int file = keeper_temp_file();
    uint8_t point[AGENT_POINT_SIZE];
    int64_t before[2], after[2], first_end_s;

    k->node_ttl_s = 4;
    keeper_spawn(k);
    keeper_send_state(k, file, true);
    close(file);
    keeper_place_state(k);
    assert_true(keeper_load_entries(k)->ok);
    keeper_new_service(k);
    keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_CHANGED);
    first_end_s = keeper_in.changed.node_not_after_s;
    good_point(point);
    assert_int_equal(issue(k, attest(k, 5000), k->generation, 0, point)->outcome, AGENT_OK);
    verify_issued(k, "spiffe://example.org/first", before);
    assert_true(before[0] <= before[1]);
    do {
        keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_CHANGED);
    } while (keeper_in.changed.node_not_after_s == first_end_s);
    assert_int_equal(issue(k, attest(k, 5000), k->generation, 0, point)->outcome, AGENT_OK);
    verify_issued(k, "spiffe://example.org/first", after);
    assert_true(after[1] > before[1] && after[0] <= after[1]);
    *state = k;
    keeper_teardown(state);
}

static void test_reload(void **state)
{
    struct keeper_process *k = *state;
    uint8_t point[AGENT_POINT_SIZE];
    uint64_t handle = attest(k, 5000), before = k->generation;
    const struct agent_msg_entries_applied *a;

    good_point(point);
    assert_int_equal(identity(k, handle, 0)->outcome, AGENT_OK);
    a = keeper_load_entries(k);
    assert_true(a->ok && a->n_added == 0 && a->n_removed == 0 && a->n_changed == 0);
    assert_int_equal(issue(k, handle, before, 0, point)->outcome, AGENT_STALE_GENERATION);
    k->generation++;
    keeper_entries_frame(k, AGENT_MSG_ENTRIES_BEGIN, 2);
    keeper_put_entry(k, 0, "first", "spiffe://example.org/renamed", 5000, NULL);
    keeper_put_entry(k, 1, "new", "spiffe://example.org/new", 5002, NULL);
    keeper_entries_frame(k, AGENT_MSG_ENTRIES_COMMIT, 2);
    a = &keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_ENTRIES_APPLIED)
             ->entries_applied;
    assert_true(a->ok);
    assert_int_equal(a->n_added, 1);
    assert_int_equal(a->n_removed, 3);
    assert_int_equal(a->n_changed, 1);
    do {
        keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_CHANGED);
    } while (keeper_in.changed.entries_generation != k->generation);
    assert_int_equal(identity(k, handle, 0)->total, 1);
}

/* A set with anything wrong in it is refused whole, and the old one stays. */
static void test_bad_entries(void **state)
{
    struct keeper_process *k = *state;
    static const struct {
        const char *spiffe_id, *id, *path;
        int64_t uid;
    } cases[] = {
        {"spiffe://example.org.evil/x", "bad", NULL, 1},
        {"spiffe://other.org/x", "bad", NULL, 1},
        {"spiffe://example.org", "bad", NULL, 1},
        {"spiffe://example.org/x/", "bad", NULL, 1},
        {"spiffe://EXAMPLE.org/x", "bad", NULL, 1},
        {"spiffe://example.org/x", "good", NULL, 1},  /* an id that is taken */
        {"spiffe://example.org/x", "", NULL, 1},      /* none */
        {"spiffe://example.org/x", "bad", NULL, -1},  /* no selector: everybody */
        {"spiffe://example.org/x", "bad", "bin", -1}, /* not absolute */
    };
    uint64_t handle = attest(k, 5000), before = k->generation;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct agent_msg_entries_applied *a;

        k->generation++;
        keeper_entries_frame(k, AGENT_MSG_ENTRIES_BEGIN, 2);
        keeper_put_entry(k, 0, "good", "spiffe://example.org/good", 5000, NULL);
        keeper_put_entry(k, 1, cases[i].id, cases[i].spiffe_id, cases[i].uid, cases[i].path);
        keeper_entries_frame(k, AGENT_MSG_ENTRIES_COMMIT, 2);
        a = &keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_ENTRIES_APPLIED)
                 ->entries_applied;
        if (a->ok || a->error.code == ERR_NONE || a->generation != before) {
            fail_msg("case %zu (%s) was taken", i, cases[i].spiffe_id);
        }
    }
    assert_int_equal(identity(k, handle, 0)->generation, before);
    assert_int_equal(keeper_in.identity.total, 2);
}

/* --- the attestor breaks its word: that is a bug or worse, and the agent ends ------------------
 */
static void test_attestor_reuses_handle(void **state)
{
    struct keeper_process *k = *state;
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    uint64_t handle = attest(k, 5000);

    tell_caller(k, AGENT_MSG_ATTESTED, handle, 5001, NULL, 0, pidfd);
    close(pidfd);
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_FAILED);
    assert_int_equal(keeper_wait_end(k), 1);
    keeper_setup(state);
}

static void test_uid_bound(void **state)
{
    struct keeper_process *k = *state;

    for (int i = 0; i <= KEEPER_MAX_UID_HANDLES; i++) {
        (void)attest(k, 6000);
    }
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_FAILED);
    assert_int_equal(keeper_wait_end(k), 1);
    keeper_setup(state);
}

static void attest_contained(struct keeper_process *k, uint32_t uid, char container)
{
    static struct agent_msg_caller c;
    char id[AGENT_CONTAINER_ID_MAX];
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    memset(id, container, sizeof(id));
    agent_ipc_init(&c, AGENT_MSG_ATTESTED, 0);
    c.handle = k->next_handle++;
    c.uid = uid;
    c.pid = 1;
    c.read_ms = os_now_ms();
    c.contained = true;
    assert_true(agent_ipc_put(c.container_id, AGENT_CONTAINER_ID_MAX, &c.container_id_len,
                              (struct str){id, sizeof(id)}));
    keeper_send(k->attestor, &c, pidfd);
    close(pidfd);
}

/* Seen in review: bounds were each uid's, so that the root of one container used up those of all
 * others' root, and had any number of uids to take more with. */
static void test_container_bound(void **state)
{
    struct keeper_process *k = *state;
    uint64_t handle = attest(k, 0);

    for (int i = 0; i <= KEEPER_MAX_UID_HANDLES; i++) { /* root of many, and of the node */
        attest_contained(k, 0, (char)('a' + i % 6));
    }
    assert_int_equal(identity(k, handle, 0)->outcome, AGENT_NOT_ENTITLED);
    for (int i = 0; i <= KEEPER_MAX_UID_HANDLES; i++) { /* many of one */
        attest_contained(k, 6000 + (uint32_t)i, 'f');
    }
    keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_FAILED);
    assert_int_equal(keeper_wait_end(k), 1);
    keeper_setup(state);
}

static void test_quarantine(void **state)
{
    struct keeper_process *k = *state;
    uint64_t handle = attest(k, 5000);
    uint8_t point[AGENT_POINT_SIZE];
    struct agent_msg_deny_begin forged;
    char byte;

    good_point(point);
    assert_int_equal(identity(k, handle, 0)->total, 2);
    keeper_deny(k, 7, AGENT_DENY_SPIFFE_ID, "spiffe://example.org/first");
    do {
        keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_CHANGED);
    } while (keeper_in.changed.deny_version != 7);
    assert_int_equal(identity(k, handle, 0)->total, 1);
    assert_int_equal(keeper_in.identity.entry, 1);
    assert_int_equal(issue(k, handle, k->generation, 0, point)->outcome, AGENT_QUARANTINED);
    assert_int_equal(issue(k, handle, k->generation, 1, point)->outcome, AGENT_OK);
    /* a serial stops nobody from asking */
    keeper_deny(k, 8, AGENT_DENY_SERIAL, "0abc");
    assert_int_equal(issue(k, handle, k->generation, 0, point)->outcome, AGENT_OK);
    keeper_deny(k, 9, AGENT_DENY_SPIFFE_ID, "spiffe://example.org/first");
    keeper_deny(k, 10, 0, NULL);
    assert_int_equal(identity(k, handle, 0)->total, 2);
    /* the service may not */
    agent_ipc_init(&forged, AGENT_MSG_DENY_BEGIN, 0);
    keeper_send(k->service, &forged, -1);
    while (read(k->service, &byte, 1) != 0) {
        struct pollfd p = {.fd = k->service, .events = POLLIN};

        assert_int_equal(poll(&p, 1, KEEPER_WAIT_MS), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_refusals, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_ended_process, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_gone_and_replay, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_facts_that_change, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_quarantine, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_flood, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_deaf_service, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_bad_messages, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_bad_entries, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_attestor_reuses_handle, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_uid_bound, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_container_bound, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_listing, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_issued_chain, keeper_setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_reload, keeper_setup, keeper_teardown),
        cmocka_unit_test(test_node_renewal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
