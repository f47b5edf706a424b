/* How many CPUs this process may use: the scheduler's mask, capped by the cgroup's quota (v2 and
 * v1). */
#include <postern/os.h>

#include <postern/mem.h>
#include <postern/str.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_FILE = 4096 };

/* The file's first line as two words; false if it is not there or not so. */
static bool read_two(const char *path, char a[32], char b[32])
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return false;
    }
    char line[128] = "";
    bool ok = fgets(line, sizeof(line), f) != NULL;
    fclose(f);
    b[0] = '\0';
    return ok && sscanf(line, "%31s %31s", a, b) >= 1; /* lint: words, not numbers */
}

/* CPUs by quota and period in microseconds, rounded up; 0: no limit. */
static unsigned quota_cpus(const char *quota, const char *period)
{
    uint64_t q;
    uint64_t p;
    if (!str_to_u64(str_of(quota), UINT32_MAX, &q) || !str_to_u64(str_of(period), UINT32_MAX, &p) ||
        p == 0 || q == 0) {
        return 0;
    }
    return (unsigned)((q + p - 1) / p);
}

static void take_min(unsigned *n, unsigned other)
{
    if (other > 0 && other < *n) {
        *n = other;
    }
}

/* Own cgroup and all above it: each may have a quota. */
static void cap_v2(unsigned *n, char *group)
{
    for (;;) {
        char path[SMALL_FILE + 64];
        char a[32];
        char b[32];
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", group);
        if (read_two(path, a, b)) {
            take_min(n, quota_cpus(a, b));
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return;
        }
        *slash = '\0';
    }
}

static void cap_v1(unsigned *n, char *group)
{
    for (;;) {
        char path[SMALL_FILE + 64];
        char quota[32];
        char period[32];
        char rest[32];
        snprintf(path, sizeof(path), "/sys/fs/cgroup/cpu%s/cpu.cfs_quota_us", group);
        bool has = read_two(path, quota, rest);
        snprintf(path, sizeof(path), "/sys/fs/cgroup/cpu%s/cpu.cfs_period_us", group);
        if (has && read_two(path, period, rest)) {
            take_min(n, quota_cpus(quota, period));
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL) {
            return;
        }
        *slash = '\0';
    }
}

unsigned os_cpu_count(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    unsigned n = sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (f != NULL) {
        char line[SMALL_FILE];
        while (fgets(line, sizeof(line), f) != NULL) {
            line[strcspn(line, "\n")] = '\0';
            char *controllers = strchr(line, ':');
            char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
            if (group == NULL) {
                continue;
            }
            *group++ = '\0';
            controllers++;
            if (*controllers == '\0') {
                cap_v2(&n, group);
            } else if (strcmp(controllers, "cpu") == 0 || strstr(controllers, "cpu,") != NULL ||
                       strstr(controllers, ",cpu") != NULL) {
                cap_v1(&n, group);
            }
        }
        fclose(f);
    }
    return n > 0 ? n : 1;
}
