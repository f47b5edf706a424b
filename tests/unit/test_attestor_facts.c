/*
 * attestor: facts beyond uid and path, read by the real process. The attack cases marked A in
 * docs/attestation.md; each with SO_PEERPIDFD and without.
 */
#include "attestor_process.h"

#include <postern/attest.h>
#include <postern/mem.h>
#include <postern/os.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define POD "8a29688e-514a-4962-b00b-693a9768948f"
#define ID2 "1111111111111111111111111111111111111111111111111111111111111111"

static void need_root(void)
{
    if (geteuid() != 0) {
        skip();
    }
}

/* Asks once more and returns what the keeper hears. */
static const struct agent_msg_caller *updated(struct attestor_process *a, uint64_t handle)
{
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    return &attestor_in.caller;
}

/* --- groups and namespaces -------------------------------------------------------------------- */
static void test_groups(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_caller c;
    struct workload w;
    uint64_t handle;

    need_root();
    w = workload_start(a);
    workload_order(&w, 'c');
    handle = attestor_next_caller(a, &c);
    assert_false(c.groups_truncated);
    workload_order(&w, 'g');
    assert_int_equal(attestor_reattest(a, handle)->outcome, AGENT_ATTEST_OK);
    assert_true(attestor_in.reattested.changed);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    assert_int_equal(attestor_in.caller.n_groups, 2);
    assert_int_equal(attestor_in.caller.groups[0], 48902);
    assert_int_equal(attestor_in.caller.groups[1], 48903);
    workload_end(&w);
}

static void write_map(pid_t pid, const char *which, const char *text)
{
    char name[64];
    int fd;

    (void)snprintf(name, sizeof(name), "/proc/%d/%s", (int)pid, which);
    fd = open(name, O_WRONLY | O_CLOEXEC);
    assert_int_not_equal(fd, -1);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* Root in a user namespace of its own is who it is outside. */
static void test_user_namespace(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_caller c;
    struct workload w;
    char map[64];

    need_root();
    w = workload_start(a);
    workload_order(&w, 'u');
    workload_order(&w, 'U');
    (void)snprintf(map, sizeof(map), "0 %d 1\n", ATTESTOR_OTHER_UID);
    write_map(w.pid, "uid_map", map);
    write_map(w.pid, "gid_map", map);
    workload_order(&w, 'r');
    workload_order(&w, 'c');
    (void)attestor_next_caller(a, &c);
    assert_int_equal(c.uid, ATTESTOR_OTHER_UID);
    assert_int_equal(c.gid, ATTESTOR_OTHER_UID);
    assert_true(c.contained);
    assert_false(c.own_view);
    assert_int_equal(c.path_len, 0);
    workload_end(&w);
}

static void test_pid_namespace(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_caller c;
    struct workload w;

    need_root();
    w = workload_start(a);
    workload_order(&w, 'p');
    workload_order(&w, 'c');
    (void)attestor_next_caller(a, &c);
    assert_int_not_equal(c.pid, w.pid);
    assert_true(c.contained);
    assert_true(c.own_view);
    workload_end(&w);
}

/* systemd's PrivateTmp= and ip netns exec: names and paths don't count, but it is of the host. */
static void test_mount_namespace_and_root(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_caller c;
    struct workload w;
    uint64_t handle;

    need_root();
    w = workload_start(a);
    workload_order(&w, 'c');
    handle = attestor_next_caller(a, &c);
    assert_true(c.own_view);
    assert_false(c.contained);
    workload_order(&w, 'N');
    assert_false(updated(a, handle)->contained);
    assert_false(attestor_in.caller.own_view);
    assert_int_equal(attestor_in.caller.path_len, 0);
    workload_order(&w, 'R');
    assert_true(updated(a, handle)->contained);
    workload_end(&w);
}

/* --- control groups --------------------------------------------------------------------------- */
/* A directory of a hierarchy in which groups can be made; false: there is none here. */
static bool find_hierarchy(char *ret, size_t size)
{
    mem_autofree char *text = NULL;
    char *line, *save = NULL;
    size_t len;

    if (os_read_file("/proc/self/mountinfo", 1 << 20, false, &text, &len, NULL) == -1) {
        return false;
    }
    for (line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char root[256], point[256];
        char probe[320];

        if ((strstr(line, " - cgroup2 ") == NULL && strstr(line, " - cgroup ") == NULL) ||
            strstr(line, "cpuset") != NULL ||
            sscanf(line, "%*s %*s %*s %255s %255s", root, point) != 2 || strcmp(root, "/") != 0) {
            continue;
        }
        (void)snprintf(probe, sizeof(probe), "%s/postern-test-%d", point, (int)getpid());
        if (mkdir(probe, 0755) == 0) {
            (void)rmdir(probe);
            (void)snprintf(ret, size, "%s", point);
            return true;
        }
    }
    return false;
}

static void move_to(const char *group, pid_t pid)
{
    char name[512], text[16];
    int fd;

    (void)snprintf(name, sizeof(name), "%s/cgroup.procs", group);
    (void)snprintf(text, sizeof(text), "%d", (int)pid);
    fd = open(name, O_WRONLY | O_CLOEXEC);
    assert_int_not_equal(fd, -1);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* A container, which then makes the name of a pod below its own place and moves there. */
static void test_fake_pod_below_container(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_caller c;
    struct workload w;
    char top[256], id[65], groups[5][512];
    uint64_t handle;
    size_t n = 0;
    bool made_top;

    need_root();
    if (!find_hierarchy(top, sizeof(top))) {
        skip();
    }
    for (size_t i = 0; i < 64; i++) {
        id[i] = "0123456789abcdef"[os_random_below(16)];
    }
    id[64] = 0;
    (void)snprintf(groups[n++], sizeof(groups[0]), "%s/docker", top);
    (void)snprintf(groups[n++], sizeof(groups[0]), "%s/docker/%s", top, id);
    (void)snprintf(groups[n++], sizeof(groups[0]), "%s/docker/%s/kubepods", top, id);
    (void)snprintf(groups[n++], sizeof(groups[0]), "%s/docker/%s/kubepods/pod%s", top, id, POD);
    (void)snprintf(groups[n++], sizeof(groups[0]), "%s/docker/%s/kubepods/pod%s/%s", top, id, POD,
                   ID2);
    made_top = mkdir(groups[0], 0755) == 0;
    for (size_t i = 1; i < n; i++) {
        assert_int_equal(mkdir(groups[i], 0755), 0);
    }
    w = workload_start(a);
    workload_order(&w, 'c');
    handle = attestor_next_caller(a, &c);
    assert_int_equal(c.container_id_len, 0);
    move_to(groups[1], w.pid);
    assert_int_equal(updated(a, handle)->container_id_len, 64);
    assert_memory_equal(attestor_in.caller.container_id, id, 64);
    assert_int_equal(attestor_in.caller.runtime, AGENT_RUNTIME_DOCKER);
    assert_true(attestor_in.caller.contained);
    move_to(groups[4], w.pid);
    assert_int_equal(updated(a, handle)->container_id_len, 0);
    assert_int_equal(attestor_in.caller.pod_uid_len, 0);
    assert_true(attestor_in.caller.contained);
    workload_end(&w);
    for (size_t i = n; i-- > (made_top ? 0 : 1);) {
        (void)rmdir(groups[i]);
    }
}

/* --- digests ---------------------------------------------------------------------------------- */
static void want_digests(struct attestor_process *a, uint64_t max_bytes)
{
    struct agent_msg_attest_options m;

    agent_ipc_init(&m, AGENT_MSG_ATTEST_OPTIONS, 0);
    m.hash_max_bytes = max_bytes;
    attestor_send(a->control, &m, -1);
    /* heard of before anything that comes after it: the service's new end comes the same way */
    attestor_new_service(a);
}

static void digest_of(const char *path, uint8_t ret[32])
{
    mem_autofree char *text = NULL;
    struct attest_sha256 s;
    size_t len;

    assert_int_equal(os_read_file(path, 256 << 20, false, &text, &len, NULL), 0);
    attest_sha256_init(&s);
    attest_sha256_add(&s, text, len);
    attest_sha256_end(&s, ret);
}

/* Until the digest is there: the answer is "not now" before. */
static const struct agent_msg_caller *with_digest(struct attestor_process *a, uint64_t handle)
{
    uint64_t until_ms = os_now_ms() + ATTESTOR_WAIT_MS;

    while (attestor_reattest(a, handle)->outcome == AGENT_ATTEST_FAILED) {
        assert_true(os_now_ms() < until_ms);
    }
    assert_int_equal(attestor_in.reattested.outcome, AGENT_ATTEST_OK);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_UPDATED);
    return &attestor_in.caller;
}

static void test_digest(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_caller c;
    struct workload w = workload_start(a);
    uint8_t ours[32], cats[32];
    uint64_t handle;

    digest_of("/proc/self/exe", ours);
    digest_of("/bin/cat", cats);
    want_digests(a, 256 << 20);
    workload_order(&w, 'c'); /* waits for the digest, and then is there with it */
    handle = attestor_next_caller(a, &c);
    assert_true(c.has_sha256);
    assert_memory_equal(c.sha256, ours, 32);
    workload_tell(&w, 'e');
    workload_order(&w, 'x'); /* it is cat by now */
    assert_true(with_digest(a, handle)->has_sha256);
    assert_memory_equal(attestor_in.caller.sha256, cats, 32);
    workload_end(&w);
}

static void test_no_digest_unless_wanted(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_caller c;
    struct workload w = workload_start(a);
    uint64_t handle;

    workload_order(&w, 'c');
    handle = attestor_next_caller(a, &c);
    assert_false(c.has_sha256);
    assert_false(updated(a, handle)->has_sha256);
    workload_end(&w);
}

static void test_too_large(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_caller c;
    struct workload w = workload_start(a);

    want_digests(a, 1000);
    workload_order(&w, 'c');
    (void)attestor_next_caller(a, &c);
    assert_false(c.has_sha256);
    assert_true(c.path_len > 0);
    workload_end(&w);
}

/* What is in memory alone was put there by the caller, and nobody else can look at it. */
static void test_memfd(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_caller c;
    struct workload w;
    mem_autofree char *text = NULL;
    char path[64];
    uint64_t handle;
    size_t len;
    int fd = memfd_create("cat", 0);

    assert_int_not_equal(fd, -1);
    assert_int_equal(os_read_file("/bin/cat", 64 << 20, false, &text, &len, NULL), 0);
    assert_int_equal(os_write_all(fd, text, len), 0);
    want_digests(a, 256 << 20);
    (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
    w = workload_start_foreign(a, path);
    handle = attestor_next_caller(a, &c);
    workload_tell(&w, 'g'); /* its facts have been read: it may exec */
    workload_order(&w, 'x');
    assert_false(with_digest(a, handle)->has_sha256);
    assert_int_equal(attestor_in.caller.path_len, 0);
    workload_end(&w);
    close(fd);
}

/* While a huge file is read, others are answered. */
static void test_huge_executable_stalls_nobody(void **state)
{
    struct attestor_process *a = *state;
    struct agent_msg_caller c;
    struct workload huge, w;
    char path[128], command[256];
    uint64_t huge_handle, handle;

    (void)snprintf(path, sizeof(path), "%s/huge", a->dir);
    (void)snprintf(command, sizeof(command), "/bin/cp /bin/cat %s", path);
    assert_int_equal(system(command), 0);
    assert_int_equal(truncate(path, INT64_C(4) << 30), 0); /* sparse: it takes no room */
    want_digests(a, UINT64_C(8) << 30);
    w = workload_start(a);
    workload_order(&w, 'c');
    handle = attestor_next_caller(a, &c);
    assert_true(c.has_sha256);
    huge = workload_start(a);
    workload_order(&huge, 'c');
    huge_handle = attestor_next_caller(a, &c);
    workload_tell(&huge, 'h');
    workload_order(&huge, 'x'); /* it runs that file by now */
    assert_int_equal(attestor_reattest(a, huge_handle)->outcome, AGENT_ATTEST_FAILED);
    for (int i = 0; i < 20; i++) {
        assert_true(updated(a, handle)->has_sha256);
    }
    /* it is not done yet, so those were answered in between */
    assert_int_equal(attestor_reattest(a, huge_handle)->outcome, AGENT_ATTEST_FAILED);
    workload_end(&huge);
    attestor_expect(a->keeper, AGENT_WAY_ATTESTOR_KEEPER, AGENT_MSG_GONE);
    unlink(path);
    workload_end(&w);
}

#define BOTH(test)                                                                                 \
    cmocka_unit_test_setup_teardown(test, attestor_setup, attestor_teardown),                      \
        cmocka_unit_test_setup_teardown(test, attestor_setup_fallback, attestor_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_fake_pod_below_container),
        BOTH(test_user_namespace),
        BOTH(test_pid_namespace),
        BOTH(test_mount_namespace_and_root),
        BOTH(test_groups),
        BOTH(test_too_large),
        BOTH(test_memfd),
        BOTH(test_huge_executable_stalls_nobody),
        BOTH(test_no_digest_unless_wanted),
        BOTH(test_digest),
    };

    return cmocka_run_group_tests_name("attestor_facts", tests, NULL, NULL);
}
