/* cgroup: every form of /proc/PID/cgroup that counts, and first those that must not. The attack
 * cases are docs/attestation.md's. */
#include <postern/attest.h>
#include <postern/mem.h>
#include <postern/os.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ID "6ddd2fcc3d793482ec1ae4841c30b1a9b7ab838da030054addcaa14c608c3d26"
#define ID2 "1111111111111111111111111111111111111111111111111111111111111111"
#define POD "8a29688e-514a-4962-b00b-693a9768948f"
#define POD_ "8a29688e_514a_4962_b00b_693a9768948f"
#define POD2 "00000000-0000-4000-8000-000000000001"
#define STATIC "0123456789abcdef0123456789abcdef"
#define SLICE(qos) "/kubepods.slice/kubepods-" qos ".slice/kubepods-" qos "-pod" POD_ ".slice"

struct good {
    const char *name, *text;
    enum agent_runtime runtime;
    const char *id, *pod, *unit;
    bool contained;
};

#define CONTAINERD AGENT_RUNTIME_CONTAINERD, ID, POD, "", true

static const struct good goods[] = {
    {"v2, systemd, containerd, burstable",
     "0::" SLICE("burstable") "/cri-containerd-" ID ".scope\n", CONTAINERD},
    {"besteffort", "0::" SLICE("besteffort") "/cri-containerd-" ID ".scope\n", CONTAINERD},
    {"guaranteed has no QoS element",
     "0::/kubepods.slice/kubepods-pod" POD_ ".slice/cri-containerd-" ID ".scope\n", CONTAINERD},
    {"CRI-O", "0::" SLICE("burstable") "/crio-" ID ".scope\n", AGENT_RUNTIME_CRIO, ID, POD, "",
     true},
    {"docker below the kubelet", "0::" SLICE("burstable") "/docker-" ID ".scope\n",
     AGENT_RUNTIME_DOCKER, ID, POD, "", true},
    {"below kubelet.slice",
     "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/"
     "kubelet-kubepods-burstable-pod" POD_ ".slice/cri-containerd-" ID ".scope\n",
     CONTAINERD},
    {"cgroupfs", "0::/kubepods/burstable/pod" POD "/" ID "\n", AGENT_RUNTIME_OTHER, ID, POD, "",
     true},
    {"cgroupfs, guaranteed", "0::/kubepods/pod" POD "/" ID "\n", AGENT_RUNTIME_OTHER, ID, POD, "",
     true},
    {"cgroupfs, CRI-O", "0::/kubepods/pod" POD "/crio-" ID "\n", AGENT_RUNTIME_CRIO, ID, POD, "",
     true},
    {"cgroupfs below kubelet", "0::/kubelet/kubepods/besteffort/pod" POD "/" ID "\n",
     AGENT_RUNTIME_OTHER, ID, POD, "", true},
    {"static pod", "0::/kubepods/burstable/pod" STATIC "/" ID "\n", AGENT_RUNTIME_OTHER, ID, STATIC,
     "", true},
    {"static pod, systemd",
     "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" STATIC
     ".slice/cri-containerd-" ID ".scope\n",
     AGENT_RUNTIME_CONTAINERD, ID, STATIC, "", true},
    {"colons", "0::/kubepods-pod" POD_ ".slice:cri-containerd:" ID "\n", CONTAINERD},
    {"colons below containerd's service",
     "0::/system.slice/containerd.service/kubepods-burstable-pod" POD_ ".slice:cri-containerd:" ID
     "\n",
     CONTAINERD},
    {"seen from another pod of the same QoS", "0::/../../pod" POD "/" ID "\n", AGENT_RUNTIME_OTHER,
     ID, POD, "", true},
    {"seen from a pod of another QoS", "0::/../../../besteffort/pod" POD "/" ID "\n",
     AGENT_RUNTIME_OTHER, ID, POD, "", true},
    {"seen from a service", "0::/../../kubepods/besteffort/pod" POD "/" ID "\n",
     AGENT_RUNTIME_OTHER, ID, POD, "", true},
    {"seen from above, systemd",
     "0::/../../kubepods-burstable-pod" POD_ ".slice/cri-containerd-" ID ".scope\n", CONTAINERD},
    {"docker", "0::/docker/" ID "\n", AGENT_RUNTIME_DOCKER, ID, "", "", true},
    {"docker, systemd", "0::/system.slice/docker-" ID ".scope\n", AGENT_RUNTIME_DOCKER, ID, "", "",
     true},
    {"nerdctl", "0::/system.slice/nerdctl-" ID ".scope\n", AGENT_RUNTIME_CONTAINERD, ID, "", "",
     true},
    {"podman", "0::/machine.slice/libpod-" ID ".scope\n", AGENT_RUNTIME_PODMAN, ID, "", "", true},
    {"podman, crun", "0::/machine.slice/libpod-" ID ".scope/container\n", AGENT_RUNTIME_PODMAN, ID,
     "", "", true},
    {"podman, in a pod",
     "0::/machine.slice/machine-libpod_pod_" ID2 ".slice/libpod-" ID ".scope/container\n",
     AGENT_RUNTIME_PODMAN, ID, "", "", true},
    {"podman, cgroupfs", "0::/libpod_parent/libpod-" ID "\n", AGENT_RUNTIME_PODMAN, ID, "", "",
     true},
    {"hybrid: the unified hierarchy names the engine's service, not the container",
     "2:memory:/docker/" ID "\n1:name=systemd:/docker/" ID
     "\n0::/system.slice/containerd.service\n",
     AGENT_RUNTIME_DOCKER, ID, "", "", true},
    {"v1 with hierarchies that say nothing",
     "3:cpuset:/\n2:memory:/kubepods/pod" POD "/" ID "\n1:name=systemd:/\n", AGENT_RUNTIME_OTHER,
     ID, POD, "", true},
    {"a service", "0::/system.slice/nginx.service\n", AGENT_RUNTIME_NONE, "", "", "nginx.service",
     false},
    {"a service in a slice", "0::/system.slice/system-getty.slice/getty@tty1.service\n",
     AGENT_RUNTIME_NONE, "", "", "getty@tty1.service", false},
    {"a service in a slice of its own", "0::/shop.slice/shop-web.slice/orders.service\n",
     AGENT_RUNTIME_NONE, "", "", "orders.service", false},
    {"a service, v1",
     "2:memory:/system.slice/nginx.service\n1:name=systemd:/system.slice/nginx.service\n0::/\n",
     AGENT_RUNTIME_NONE, "", "", "nginx.service", false},
    {"a service seen from a pod", "0::/../../../../system.slice/nginx.service\n",
     AGENT_RUNTIME_NONE, "", "", "nginx.service", false},
    {"the root", "0::/\n", AGENT_RUNTIME_NONE, "", "", "", false},
    {"without a last newline", "0::/docker/" ID, AGENT_RUNTIME_DOCKER, ID, "", "", true},
};

/* Nobody's identity. `contained`: at least it is known not to be of the host. */
static const struct {
    const char *name, *text;
    bool contained, conflict;
} bads[] = {
    /* names that a workload can make below its own place */
    {"a pod's name below a pod's", "0::/kubepods/pod" POD "/" ID "/kubepods/pod" POD2 "/" ID2 "\n",
     true, false},
    {"a pod's name below a container", "0::/docker/" ID "/kubepods/pod" POD "/" ID2 "\n", true,
     false},
    {"a pod's name below a service", "0::/system.slice/evil.service/kubepods/pod" POD "/" ID "\n",
     false, false},
    {"slices below a service",
     "0::/system.slice/evil.service" SLICE("burstable") "/cri-containerd-" ID ".scope\n", false,
     false},
    {"colons below another service",
     "0::/system.slice/evil.service/kubepods-pod" POD_ ".slice:cri-containerd:" ID "\n", true,
     false},
    {"a pod's name below a user's manager",
     "0::/user.slice/user-1000.slice/user@1000.service/kubepods/pod" POD "/" ID "\n", false, false},
    {"one level below a container", "0::/kubepods/pod" POD "/" ID "/x\n", true, false},
    {"one level below a scope", "0::" SLICE("burstable") "/cri-containerd-" ID ".scope/init\n",
     true, false},
    {"two containers in one path", "0::/docker/" ID "/docker/" ID2 "\n", true, false},
    {"below a container, seen from above", "0::/../../pod" POD "/" ID "/pod" POD2 "/" ID2 "\n",
     true, false},
    {"a service's name below a service",
     "0::/system.slice/evil.service/system.slice/nginx.service\n", false, false},
    {"a service's name below a container", "0::/docker/" ID "/system.slice/nginx.service\n", true,
     false},
    {"a service's name in a service", "0::/system.slice/evil.service/nginx.service\n", false,
     false},
    {"a user's service", "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n",
     false, false},
    {"a user's manager", "0::/user.slice/user-1000.slice/user@1000.service\n", false, false},
    {"rootless podman",
     "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID ".scope\n", false,
     false},
    /* not the kubelet's */
    {"slices that are not each other's parents",
     "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-burstable-pod" POD_
     ".slice/cri-containerd-" ID ".scope\n",
     true, false},
    {"a pod's slice at the root",
     "0::/kubepods-burstable-pod" POD_ ".slice/cri-containerd-" ID ".scope\n", true, false},
    {"a pod at the root", "0::/pod" POD "/" ID "\n", false, false},
    {"a pod below another top", "0::/evil/kubepods/pod" POD "/" ID "\n", false, false},
    {"another QoS", "0::/kubepods/guaranteed/pod" POD "/" ID "\n", true, false},
    {"the monitor of CRI-O", "0::" SLICE("burstable") "/crio-conmon-" ID ".scope\n", true, false},
    {"the monitor of podman", "0::/machine.slice/libpod-conmon-" ID ".scope\n", true, false},
    {"an ID in capitals",
     "0::/docker/6DDD2FCC3D793482EC1AE4841C30B1A9B7AB838DA030054ADDCAA14C608C3D26\n", true, false},
    {"a short ID", "0::/docker/6ddd2fcc3d79\n", true, false},
    {"a long ID", "0::/docker/" ID "0\n", true, false},
    {"a UID with underscores where dashes belong", "0::/kubepods/pod" POD_ "/" ID "\n", true,
     false},
    {"a UID that is none", "0::/kubepods/podabc/" ID "\n", true, false},
    {"a pod without a container", "0::/kubepods/burstable/pod" POD "\n", true, false},
    {"a container of its own pod, seen from above: whose pod is not said", "0::/../" ID "\n", true,
     false},
    {"levels up in the middle", "0::/kubepods/../docker/" ID "\n", true, false},
    {"a group that is gone", "0::/system.slice/nginx.service (deleted)\n", false, false},
    {"a slice that is no child of the other", "0::/system.slice/user-getty.slice/x.service\n",
     false, false},
    {"a slice with a dash at the top", "0::/a-b.slice/x.service\n", false, false},
    {"a scope", "0::/system.slice/session-3.scope\n", false, false},
    {"a virtual machine", "0::/machine.slice/machine-qemu.scope\n", true, false},
    {"a container's place that we don't know", "0::/default/web\n", false, false},
    {"one hierarchy names a service, another something else",
     "2:memory:/default/web\n1:name=systemd:/system.slice/containerd.service\n", false, false},
    /* two answers */
    {"two containers", "2:memory:/docker/" ID "\n1:cpu:/docker/" ID2 "\n", true, true},
    {"a pod and a container", "2:memory:/kubepods/pod" POD "/" ID "\n1:cpu:/docker/" ID "\n", true,
     true},
    {"two pods", "2:memory:/kubepods/pod" POD "/" ID "\n1:cpu:/kubepods/pod" POD2 "/" ID "\n", true,
     true},
    {"two services", "2:memory:/system.slice/a.service\n1:cpu:/system.slice/b.service\n", false,
     true},
    /* too deep */
    {"thirty levels", "0::/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u/v/w/x/y/z/1/2/3/4\n", false,
     false},
};

static const char *const malformed[] = {
    "",           "\n",       "0\n",   "0:\n",       "0::\n",    "0::x\n",  "x::/\n",
    "0::/a//b\n", "0::/a/\n", "::/\n", "-1:cpu:/\n", "0::/\n\n", "0::/\nx", "99999999999::/\n"};

static void test_malformed(void **state)
{
    struct attest_cgroup c;

    (void)state;
    for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
        if (attest_cgroup_parse(malformed[i], strlen(malformed[i]), STR_NONE, &c)) {
            fail_msg("case %zu was taken: %s", i, malformed[i]);
        }
    }
}

static void test_nobody(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
        struct attest_cgroup c;

        assert_true(attest_cgroup_parse(bads[i].text, strlen(bads[i].text), STR_NONE, &c));
        if (c.container_id[0] != 0 || c.pod_uid[0] != 0 || c.unit[0] != 0 ||
            c.runtime != AGENT_RUNTIME_NONE || c.contained != bads[i].contained ||
            c.conflict != bads[i].conflict) {
            fail_msg("%s: container %s pod %s unit %s contained %d conflict %d", bads[i].name,
                     c.container_id, c.pod_uid, c.unit, c.contained, c.conflict);
        }
    }
}

static void check_good(const char *name, const struct attest_cgroup *c, const struct good *g)
{
    if (c->runtime != g->runtime || strcmp(c->container_id, g->id) != 0 ||
        strcmp(c->pod_uid, g->pod) != 0 || strcmp(c->unit, g->unit) != 0 ||
        c->contained != g->contained || c->conflict) {
        fail_msg("%s: runtime %s container %s pod %s unit %s contained %d conflict %d", name,
                 agent_runtime_name(c->runtime), c->container_id, c->pod_uid, c->unit, c->contained,
                 c->conflict);
    }
}

static void test_forms(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
        struct attest_cgroup c;

        assert_true(attest_cgroup_parse(goods[i].text, strlen(goods[i].text), STR_NONE, &c));
        check_good(goods[i].name, &c, &goods[i]);
    }
}

/* An agent that runs in a container, as nodes of kind do: below its own place everything is as on a
 * machine of its own, and nowhere else. */
static void test_nested(void **state)
{
    char prefix[ATTEST_CGROUP_PREFIX_MAX + 1];
    const char *own = "0::/docker/" ID2 "/kubelet/kubepods/pod" POD2 "/" ID2 "\n";
    struct attest_cgroup c;

    (void)state;
    attest_cgroup_own_prefix(own, strlen(own), prefix);
    assert_string_equal(prefix, "/docker/" ID2);
    for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
        mem_autofree char *text = NULL;
        const char *line = goods[i].text;

        if (strncmp(line, "0::/", 4) != 0 || strstr(line, "/..") != NULL ||
            strchr(line, '\n') == NULL || strcmp(line, "0::/\n") == 0) {
            continue;
        }
        text = mem_must_printf("0::%s%s", prefix, line + 3);
        assert_true(attest_cgroup_parse(text, strlen(text), str_of(prefix), &c));
        check_good(goods[i].name, &c, &goods[i]);
        /* for an agent outside, it is some container's own doing */
        assert_true(attest_cgroup_parse(text, strlen(text), STR_NONE, &c));
        assert_string_equal(c.container_id, "");
        assert_string_equal(c.unit, "");
        assert_true(c.contained);
    }
    assert_true(attest_cgroup_parse("0::/docker/" ID2 "\n", 4 + 7 + 64 + 1, str_of(prefix), &c));
    assert_false(c.contained);
    /* a prefix of the name is not the place */
    assert_true(attest_cgroup_parse("0::/docker/" ID2 "0/docker/" ID "\n", 4 + 7 + 65 + 8 + 64 + 1,
                                    str_of(prefix), &c));
    assert_string_equal(c.container_id, "");
}

static void test_own_prefix(void **state)
{
    static const struct {
        const char *text, *prefix;
    } cases[] = {
        {"0::/\n", ""},
        {"0::/system.slice/postern.service\n", ""},
        {"0::/user.slice/user-0.slice/session-1.scope\n", ""},
        {"0::/system.slice/docker-" ID ".scope/init.scope\n", "/system.slice/docker-" ID ".scope"},
        {"2:memory:/docker/" ID "\n1:name=systemd:/docker/" ID "/system.slice/x.service\n0::/\n",
         "/docker/" ID},
        {"2:memory:/docker/" ID "\n1:cpu:/docker/" ID2 "\n", ""}, /* in two: none is named */
        {"0::/kubepods/pod" POD "/" ID "\n", "/kubepods/pod" POD "/" ID},
        {"nonsense", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char prefix[ATTEST_CGROUP_PREFIX_MAX + 1];

        attest_cgroup_own_prefix(cases[i].text, strlen(cases[i].text), prefix);
        assert_string_equal(prefix, cases[i].prefix);
    }
}

static void test_recorded(void **state)
{
    mem_autofree char *text = NULL;
    struct attest_cgroup c;
    size_t len;

    (void)state;
    assert_int_equal(
        os_read_file(CGROUP_DATA_DIR "/kubelet-v1-hybrid.txt", 1 << 16, false, &text, &len, NULL),
        0);
    assert_true(attest_cgroup_parse(text, len, STR_NONE, &c));
    assert_string_equal(c.container_id, ID);
    assert_string_equal(c.pod_uid, POD);
    assert_true(c.contained);
    assert_string_equal(c.unit, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed),  cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_forms),      cmocka_unit_test(test_nested),
        cmocka_unit_test(test_own_prefix), cmocka_unit_test(test_recorded),
    };

    return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}
