/*
 * /proc/PID/cgroup. First byte: how many of the next bytes are the agent's own prefix; the rest is
 * the text.
 *
 * Properties: what is found has the form that entries compare with, and a place below the one that
 * was found is never the same container or unit: a workload cannot make a name that counts.
 */
#include <postern/attest.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void check(const struct attest_cgroup *c)
{
    require(c->runtime < AGENT_N_RUNTIMES);
    require(c->container_id[0] == 0 || strlen(c->container_id) == 64);
    require(strspn(c->container_id, "0123456789abcdef") == strlen(c->container_id));
    require(c->pod_uid[0] == 0 || strlen(c->pod_uid) == 36 || strlen(c->pod_uid) == 32);
    require(strspn(c->pod_uid, "0123456789abcdef-") == strlen(c->pod_uid));
    require(strchr(c->unit, '/') == NULL);
    require((c->container_id[0] != 0) <= c->contained);
    require(c->pod_uid[0] == 0 || c->container_id[0] != 0);
    require(c->unit[0] == 0 || !c->contained);
    require(!c->conflict || (c->container_id[0] == 0 && c->unit[0] == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct attest_cgroup c, below;
    char own[ATTEST_CGROUP_PREFIX_MAX + 1];
    struct str prefix;
    const char *text;
    char *longer;
    size_t len;

    if (size < 1 || data[0] > size - 1) {
        return 0;
    }
    prefix = (struct str){(const char *)data + 1, data[0]};
    text = (const char *)data + 1 + prefix.n;
    len = size - 1 - prefix.n;
    attest_cgroup_own_prefix(text, len, own);
    if (!attest_cgroup_parse(text, len, prefix, &c)) {
        return 0;
    }
    check(&c);
    /* One line, and the same place with something below it that the workload has made. */
    if (memchr(text, '\n', len) != text + len - 1 || (c.container_id[0] == 0 && c.unit[0] == 0)) {
        return 0;
    }
    longer = malloc(len + 8);
    require(longer != NULL);
    memcpy(longer, text, len - 1);
    memcpy(longer + len - 1, "/below\n", 7);
    require(attest_cgroup_parse(longer, len + 6, prefix, &below));
    check(&below);
    require(below.container_id[0] == 0 && below.unit[0] == 0 && below.pod_uid[0] == 0);
    free(longer);
    return 0;
}
