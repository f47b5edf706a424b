/*
 * The keeper and the pods of its node: the real process, with the test in the place of the one that
 * asks the kubelet. docs/kubernetes.md lists the attack cases marked P.
 */
#include "keeper_process.h"

#include <postern/agent_ipc.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/x509.h>

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define UID_A "8a29688e-514a-4962-b00b-693a9768948f"
#define UID_B "c7ee5da7-70b1-44c8-8ff9-4aa011df7225"
#define ID16(c) c c c c c c c c c c c c c c c c
#define ID_A ID16("12ab")
#define ID_B ID16("34cd")

/* --- playing the others ----------------------------------------------------------------------- */
static int new_kubelet(struct keeper_process *k)
{
    struct agent_msg_plain m;
    int pair[2];

    assert_int_equal(ipc_pair(pair, NULL), 0);
    agent_ipc_init(&m, AGENT_MSG_KUBELET, 0);
    keeper_send(k->control, &m, pair[0]);
    close(pair[0]);
    return pair[1];
}

static void put_selector(struct agent_msg_entry *e, enum agent_selector_type type, const char *text)
{
    size_t n = strlen(text);

    memcpy(e->selector_text + e->selector_text_len, text, n);
    e->selector_text_len = (uint16_t)(e->selector_text_len + n);
    e->selectors[e->n_selectors++] = (struct agent_selector){.type = type, .text_len = (uint16_t)n};
}

/* By namespace, with a template; then by the container's name. */
static void load_entries(struct keeper_process *k)
{
    static const struct {
        const char *id, *spiffe_id;
        enum agent_selector_type type;
        const char *text;
    } entries[] = {
        {"pod", "spiffe://example.org/ns/{k8s.ns}/sa/{k8s.sa}", AGENT_SELECTOR_K8S_NS, "shop"},
        {"container", "spiffe://example.org/container", AGENT_SELECTOR_K8S_CONTAINER_NAME, "app"},
    };
    static struct agent_msg_entry e;

    keeper_entries_frame(k, AGENT_MSG_ENTRIES_BEGIN, 2);
    for (uint32_t i = 0; i < 2; i++) {
        agent_ipc_init(&e, AGENT_MSG_ENTRY, 0);
        e.index = i;
        assert_true(agent_ipc_put(e.id, AGENT_NAME_MAX, &e.id_len, str_of(entries[i].id)));
        assert_true(agent_ipc_put(e.spiffe_id, AGENT_ID_MAX, &e.spiffe_id_len,
                                  str_of(entries[i].spiffe_id)));
        put_selector(&e, entries[i].type, entries[i].text);
        keeper_send(k->control, &e, -1);
    }
    keeper_entries_frame(k, AGENT_MSG_ENTRIES_COMMIT, 2);
    assert_true(keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_ENTRIES_APPLIED)
                    ->entries_applied.ok);
}

static int setup(void **state)
{
    int r = keeper_setup(state);

    load_entries(*state);
    return r;
}

static void frame(int fd, enum agent_msg_type type, uint32_t n_pods)
{
    struct agent_msg_pods_begin m;

    agent_ipc_init(&m, type, 0);
    m.n_pods = n_pods;
    keeper_send(fd, &m, -1);
}

static void put_pod(int fd, const char *uid, const char *ns, uint32_t n_containers)
{
    static struct agent_msg_pod m;

    agent_ipc_init(&m, AGENT_MSG_POD, 0);
    m.n_containers = n_containers;
    assert_true(agent_ipc_put(m.uid, sizeof(m.uid), &m.uid_len, str_of(uid)));
    assert_true(agent_ipc_put(m.ns, sizeof(m.ns), &m.ns_len, str_of(ns)));
    assert_true(agent_ipc_put(m.name, sizeof(m.name), &m.name_len, STR_LIT("web-1")));
    assert_true(agent_ipc_put(m.sa, sizeof(m.sa), &m.sa_len, STR_LIT("web")));
    assert_true(agent_ipc_put(m.labels, sizeof(m.labels), &m.labels_len, STR_LIT("app=web\nx=\n")));
    keeper_send(fd, &m, -1);
}

static void put_container(int fd, const char *id, const char *name)
{
    static struct agent_msg_container m;

    agent_ipc_init(&m, AGENT_MSG_CONTAINER, 0);
    assert_true(agent_ipc_put(m.id, sizeof(m.id), &m.id_len, str_of(id)));
    assert_true(agent_ipc_put(m.name, sizeof(m.name), &m.name_len, str_of(name)));
    keeper_send(fd, &m, -1);
}

/* Two pods with a container each. */
static void tell_both(int fd, bool reversed)
{
    frame(fd, AGENT_MSG_PODS_BEGIN, 2);
    for (int i = 0; i < 2; i++) {
        bool first = (i == 0) != reversed;

        put_pod(fd, first ? UID_A : UID_B, first ? "shop" : "data", 1);
        put_container(fd, first ? ID_A : ID_B, "app");
    }
    frame(fd, AGENT_MSG_PODS_COMMIT, 2);
}

static uint64_t attest(struct keeper_process *k, const char *pod_uid, const char *container_id)
{
    static struct agent_msg_caller c;
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    agent_ipc_init(&c, AGENT_MSG_ATTESTED, 0);
    c.handle = k->next_handle++;
    c.uid = 1000;
    c.pid = 1;
    c.read_ms = os_now_ms();
    c.contained = true;
    assert_true(agent_ipc_put(c.pod_uid, sizeof(c.pod_uid), &c.pod_uid_len, str_of(pod_uid)));
    assert_true(agent_ipc_put(c.container_id, sizeof(c.container_id), &c.container_id_len,
                              str_of(container_id)));
    keeper_send(k->attestor, &c, pidfd);
    close(pidfd);
    return c.handle;
}

static const struct agent_msg_identity *identity(struct keeper_process *k, uint64_t handle,
                                                 uint32_t position)
{
    struct agent_msg_identity_get m;

    agent_ipc_init(&m, AGENT_MSG_IDENTITY_GET, 77);
    m.handle = handle;
    m.position = position;
    keeper_send(k->service, &m, -1);
    return &keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_IDENTITY)->identity;
}

/* Asks until the answer is another than `pending`; what is told to the kubelet's process has come
 * by then. */
static const struct agent_msg_identity *settled(struct keeper_process *k, uint64_t handle)
{
    const struct agent_msg_identity *a = identity(k, handle, 0);

    while (a->outcome == AGENT_PENDING) {
        struct pollfd nothing = {.fd = -1};

        (void)poll(&nothing, 1, 20);
        a = identity(k, handle, 0);
    }
    return a;
}

/* Until what was sent on the kubelet's channel counts: `changed` says so. */
static uint64_t wait_changed(struct keeper_process *k, uint64_t before)
{
    for (;;) {
        keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_CHANGED);
        if (keeper_in.changed.pods_generation > before) {
            return keeper_in.changed.pods_generation;
        }
    }
}

static void assert_id(const struct agent_msg_identity *a, const char *id)
{
    assert_int_equal(a->outcome, AGENT_OK);
    if (!str_eq((struct str){a->spiffe_id, a->spiffe_id_len}, str_of(id))) {
        fail_msg("%.*s is not %s", (int)a->spiffe_id_len, a->spiffe_id, id);
    }
}

static size_t count_wanted(int fd)
{
    size_t n = 0;
    int passed = -1;

    while (agent_ipc_recv(fd, AGENT_WAY_KEEPER_KUBELET, &keeper_in, &passed) == IPC_OK) {
        assert_int_equal(keeper_in.head.type, AGENT_MSG_PODS_WANTED);
        n++;
    }
    return n;
}

static void assert_closed(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int passed = -1;

    for (;;) {
        assert_int_equal(poll(&p, 1, KEEPER_WAIT_MS), 1);
        switch (agent_ipc_recv(fd, AGENT_WAY_KEEPER_KUBELET, &keeper_in, &passed)) {
        case IPC_OK:
        case IPC_AGAIN:
            break;
        case IPC_CLOSED:
            return;
        case IPC_BAD:
            fail();
        }
    }
}

/* --- refusals --------------------------------------------------------------------------------- */
static void test_no_kubelet(void **state)
{
    struct keeper_process *k = *state;

    /* Nobody to wait for. */
    assert_int_equal(identity(k, attest(k, UID_A, ID_A), 0)->outcome, AGENT_NOT_ENTITLED);
}

static void test_unknown_waits_and_not_for_ever(void **state)
{
    struct keeper_process *k = *state;
    int fd = new_kubelet(k);
    uint64_t began_ms = os_now_ms(), handle, outside;
    size_t wanted;

    tell_both(fd, false);
    wait_changed(k, 0);
    handle = attest(k, "00000000-0000-0000-0000-000000000000", ID_A);
    outside = attest(k, NULL, NULL);
    assert_int_equal(identity(k, handle, 0)->outcome, AGENT_PENDING);
    /* Whoever is in no pod never waits. */
    assert_int_equal(identity(k, outside, 0)->outcome, AGENT_NOT_ENTITLED);
    assert_int_equal(settled(k, handle)->outcome, AGENT_NOT_ENTITLED);
    wanted = count_wanted(fd);
    assert_true(wanted >= 1 && wanted <= (os_now_ms() - began_ms) / 500 + 1);
    /* Once waited for, it is answered at once. */
    assert_int_equal(identity(k, handle, 0)->outcome, AGENT_NOT_ENTITLED);
    close(fd);
}

static void test_entries_that_do_not_ask(void **state)
{
    struct keeper_process *k = *state;
    int fd = new_kubelet(k);

    tell_both(fd, false);
    wait_changed(k, 0);
    assert_true(keeper_load_entries(k)->ok); /* by uid and path alone */
    assert_int_equal(
        identity(k, attest(k, "00000000-0000-0000-0000-000000000000", ID_A), 0)->outcome,
        AGENT_NOT_ENTITLED);
    assert_int_equal(count_wanted(fd), 0);
    close(fd);
}

/* One entry by the container's id alone: nothing that the kubelet would have to tell. */
static void load_by_id(struct keeper_process *k)
{
    static struct agent_msg_entry e;

    keeper_entries_frame(k, AGENT_MSG_ENTRIES_BEGIN, 1);
    agent_ipc_init(&e, AGENT_MSG_ENTRY, 0);
    assert_true(agent_ipc_put(e.id, AGENT_NAME_MAX, &e.id_len, STR_LIT("id")));
    assert_true(agent_ipc_put(e.spiffe_id, AGENT_ID_MAX, &e.spiffe_id_len,
                              STR_LIT("spiffe://example.org/id")));
    put_selector(&e, AGENT_SELECTOR_CONTAINER_ID, ID_A);
    keeper_send(k->control, &e, -1);
    keeper_entries_frame(k, AGENT_MSG_ENTRIES_COMMIT, 1);
    assert_true(keeper_expect(k->control, AGENT_WAY_KEEPER_SUPERVISOR, AGENT_MSG_ENTRIES_APPLIED)
                    ->entries_applied.ok);
}

/* An image is quarantined: whoever is in a pod that nobody has told of may run it. That stopped
 * only the containers of pods that were told of. */
static void test_quarantined_image(void **state)
{
    struct keeper_process *k = *state;
    int fd = new_kubelet(k);
    uint64_t told, untold, outside;

    load_by_id(k);
    told = attest(k, UID_A, ID_A);
    untold = attest(k, "00000000-0000-0000-0000-000000000000", ID_A);
    outside = attest(k, NULL, ID_A);
    assert_id(identity(k, told, 0), "spiffe://example.org/id");
    keeper_deny(k, 7, AGENT_DENY_IMAGE_DIGEST, "sha256:" ID16("0123"));
    assert_int_equal(identity(k, told, 0)->outcome, AGENT_QUARANTINED);
    assert_int_equal(identity(k, untold, 0)->outcome, AGENT_QUARANTINED);
    assert_id(identity(k, outside, 0), "spiffe://example.org/id");
    tell_both(fd, false);
    wait_changed(k, 0);
    assert_id(identity(k, told, 0), "spiffe://example.org/id"); /* it runs another image */
    assert_int_equal(identity(k, untold, 0)->outcome, AGENT_QUARANTINED);
    keeper_deny(k, 8, 0, NULL);
    assert_id(identity(k, untold, 0), "spiffe://example.org/id");
    close(fd);
}

static void test_container_of_another_pod(void **state)
{
    struct keeper_process *k = *state;
    int fd = new_kubelet(k);
    uint64_t handle;

    tell_both(fd, false);
    wait_changed(k, 0);
    /* Its control group names pod A; B's container is none of A's: what needs one does not hold. */
    handle = attest(k, UID_A, ID_B);
    assert_id(settled(k, handle), "spiffe://example.org/ns/shop/sa/web");
    assert_int_equal(keeper_in.identity.total, 1);
    assert_int_equal(identity(k, handle, 1)->outcome, AGENT_NOT_ENTITLED);
    close(fd);
}

/* Each of these ends its channel, and nothing else. */
static void bad_pod_alone(int fd)
{
    put_pod(fd, UID_A, "evil", 0);
}
static void bad_container_alone(int fd)
{
    frame(fd, AGENT_MSG_PODS_BEGIN, 1);
    put_container(fd, ID_A, "app");
}
static void bad_too_many(int fd)
{
    frame(fd, AGENT_MSG_PODS_BEGIN, 1);
    put_pod(fd, UID_A, "evil", 0);
    put_pod(fd, UID_B, "evil", 0);
}
static void bad_too_many_containers(int fd)
{
    frame(fd, AGENT_MSG_PODS_BEGIN, 1);
    put_pod(fd, UID_A, "evil", 1);
    put_container(fd, ID_A, "app");
    put_container(fd, ID_B, "app");
}
static void bad_too_few(int fd)
{
    frame(fd, AGENT_MSG_PODS_BEGIN, 2);
    put_pod(fd, UID_A, "evil", 0);
    frame(fd, AGENT_MSG_PODS_COMMIT, 2);
}
static void bad_containers_missing(int fd)
{
    frame(fd, AGENT_MSG_PODS_BEGIN, 1);
    put_pod(fd, UID_A, "evil", 1);
    frame(fd, AGENT_MSG_PODS_COMMIT, 1);
}
static void bad_other_count(int fd)
{
    frame(fd, AGENT_MSG_PODS_BEGIN, 1);
    put_pod(fd, UID_A, "evil", 0);
    frame(fd, AGENT_MSG_PODS_COMMIT, 0);
}
static void bad_twice(int fd)
{
    frame(fd, AGENT_MSG_PODS_BEGIN, 2);
    put_pod(fd, UID_A, "evil", 0);
    put_pod(fd, UID_A, "worse", 0);
}
static void bad_text(int fd)
{
    frame(fd, AGENT_MSG_PODS_BEGIN, 1);
    put_pod(fd, UID_A, "e vil", 0);
}
static void bad_uid(int fd)
{
    frame(fd, AGENT_MSG_PODS_BEGIN, 1);
    put_pod(fd, "../../etc", "evil", 0);
}
static void bad_type(int fd)
{
    struct agent_msg_plain m;

    agent_ipc_init(&m, AGENT_MSG_READY, 0);
    keeper_send(fd, &m, -1);
}

static void test_protocol_is_broken(void **state)
{
    static void (*const cases[])(int fd) = {
        bad_pod_alone,
        bad_container_alone,
        bad_too_many,
        bad_too_few,
        bad_containers_missing,
        bad_too_many_containers,
        bad_other_count,
        bad_twice,
        bad_text,
        bad_uid,
        bad_type,
    };
    struct keeper_process *k = *state;
    int fd = new_kubelet(k);
    uint64_t handle = attest(k, UID_A, ID_A);

    tell_both(fd, false);
    wait_changed(k, 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cases[i](fd);
        assert_closed(fd);
        close(fd);
        assert_true(keeper_still_runs(k));
        assert_id(identity(k, handle, 0), "spiffe://example.org/ns/shop/sa/web");
        fd = new_kubelet(k);
    }
    /* The next one is believed again. */
    frame(fd, AGENT_MSG_PODS_BEGIN, 0);
    frame(fd, AGENT_MSG_PODS_COMMIT, 0);
    wait_changed(k, 1);
    assert_int_equal(identity(k, handle, 0)->outcome, AGENT_NOT_ENTITLED);
    close(fd);
}

/* --- what is told ----------------------------------------------------------------------------- */
static void test_pending_until_told(void **state)
{
    struct keeper_process *k = *state;
    int fd = new_kubelet(k);
    uint64_t handle = attest(k, UID_A, ID_A);

    /* The pod is there before its container is. */
    frame(fd, AGENT_MSG_PODS_BEGIN, 1);
    put_pod(fd, UID_A, "shop", 0);
    frame(fd, AGENT_MSG_PODS_COMMIT, 1);
    wait_changed(k, 0);
    assert_int_equal(identity(k, handle, 0)->outcome, AGENT_PENDING);
    tell_both(fd, false);
    wait_changed(k, 1);
    assert_id(identity(k, handle, 0), "spiffe://example.org/ns/shop/sa/web");
    assert_int_equal(keeper_in.identity.total, 2);
    assert_id(identity(k, handle, 1), "spiffe://example.org/container");
    close(fd);
}

static void test_only_another_set_is_a_change(void **state)
{
    struct keeper_process *k = *state;
    int fd = new_kubelet(k);
    uint64_t handle = attest(k, UID_A, ID_A), facts;

    tell_both(fd, false);
    wait_changed(k, 0);
    facts = identity(k, handle, 0)->facts;
    tell_both(fd, true); /* the same, in another order */
    frame(fd, AGENT_MSG_PODS_BEGIN, 1);
    put_pod(fd, UID_A, "shop", 1);
    put_container(fd, ID_A, "app");
    frame(fd, AGENT_MSG_PODS_COMMIT, 1); /* one that is another */
    assert_int_equal(wait_changed(k, 1), 2);
    assert_int_equal(identity(k, handle, 0)->facts, facts + 1);
    close(fd);
}

static void test_gone_is_gone(void **state)
{
    struct keeper_process *k = *state;
    int fd = new_kubelet(k);
    uint64_t handle = attest(k, UID_A, ID_A);
    struct agent_msg_issue m;
    EVP_PKEY *key = x509_key_new(NULL);

    tell_both(fd, false);
    wait_changed(k, 0);
    agent_ipc_init(&m, AGENT_MSG_ISSUE, 78);
    m.handle = handle;
    m.generation = identity(k, handle, 0)->generation;
    assert_int_equal(x509_key_point(key, m.point, NULL), 0);
    EVP_PKEY_free(key);
    keeper_send(k->service, &m, -1);
    keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_ISSUED);
    assert_int_equal(keeper_in.issued.outcome, AGENT_OK);
    frame(fd, AGENT_MSG_PODS_BEGIN, 0);
    frame(fd, AGENT_MSG_PODS_COMMIT, 0);
    wait_changed(k, 1);
    /* Whoever was known is not waited for. */
    assert_int_equal(identity(k, handle, 0)->outcome, AGENT_NOT_ENTITLED);
    keeper_send(k->service, &m, -1);
    keeper_expect(k->service, AGENT_WAY_KEEPER_SERVICE, AGENT_MSG_ISSUED);
    assert_int_equal(keeper_in.issued.outcome, AGENT_NOT_ENTITLED);
    close(fd);
}

static void test_as_many_as_may_be(void **state)
{
    struct keeper_process *k = *state;
    int fd = new_kubelet(k);
    char uid[48], id[AGENT_CONTAINER_ID_MAX + 1];

    frame(fd, AGENT_MSG_PODS_BEGIN, AGENT_PODS_MAX);
    for (unsigned i = AGENT_PODS_MAX; i > 0; i--) {
        (void)snprintf(uid, sizeof(uid), "%032x", i);
        (void)snprintf(id, sizeof(id), "%064x", i);
        put_pod(fd, uid, "shop", 1);
        put_container(fd, id, "app");
    }
    frame(fd, AGENT_MSG_PODS_COMMIT, AGENT_PODS_MAX);
    wait_changed(k, 0);
    for (unsigned i = 1; i <= AGENT_PODS_MAX; i += 341) {
        (void)snprintf(uid, sizeof(uid), "%032x", i);
        (void)snprintf(id, sizeof(id), "%064x", i);
        assert_id(identity(k, attest(k, uid, id), 0), "spiffe://example.org/ns/shop/sa/web");
    }
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_kubelet, setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_unknown_waits_and_not_for_ever, setup,
                                        keeper_teardown),
        cmocka_unit_test_setup_teardown(test_quarantined_image, setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_entries_that_do_not_ask, setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_container_of_another_pod, setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_protocol_is_broken, setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_pending_until_told, setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_only_another_set_is_a_change, setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_gone_is_gone, setup, keeper_teardown),
        cmocka_unit_test_setup_teardown(test_as_many_as_may_be, setup, keeper_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
