/*
 * attest: what the kernel says about a process, and what of it may be believed.
 *
 * The attestor reads its callers with it, and `postern agent attest PID` shows with the very same
 * code what a process looks like. docs/attestation.md has the rules and the attack cases.
 *
 *   text.c    kernel text -> values: pure functions
 *   cgroup.c  /proc/PID/cgroup -> container, pod, systemd unit: a pure function
 *   mounts.c  which mounts are of our own mount namespace, and of what file system a process's are
 *   process.c a process, pinned by a pidfd; its facts
 *   exe.c     the digest of its executable, a piece at a time
 *   sha256.c  FIPS 180-4: the attestor links no library
 *
 * Thread: one. Needs no privilege, but sees less without CAP_SYS_PTRACE.
 */
#ifndef POSTERN_ATTEST_H
#define POSTERN_ATTEST_H

#include <postern/agent_ipc.h>
#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* --- kernel text ------------------------------------------------------------------------------ */
struct attest_groups {
    uint32_t n;
    bool truncated; /* there are more than we look at */
    uint32_t gids[AGENT_GROUPS_MAX];
};
/* Effective ids, and the supplementary groups. false: not the text of a status file. */
bool attest_parse_status(const char *text, size_t len, uint32_t *ret_uid, uint32_t *ret_gid,
                         struct attest_groups *ret_groups);
/* Effective capabilities, as a mask of 1 << CAP_*; and whether the process is in a pid namespace
 * below ours, as far as such a file says (everybody may read it). */
bool attest_parse_caps(const char *text, size_t len, uint64_t *ret_caps);
bool attest_parse_nested_pid(const char *text, size_t len);
bool attest_parse_stat(const char *text, size_t len, uint64_t *ret_start_time);
bool attest_parse_fdinfo(const char *text, size_t len, pid_t *ret_pid);
/* The type of the file system that is mounted under this id, a view into the text; STR_NONE. */
struct str attest_parse_mount_type(const char *text, size_t len, uint64_t id);

/* --- control groups --------------------------------------------------------------------------- */
enum { ATTEST_CGROUP_PREFIX_MAX = 400 };

struct attest_cgroup {
    uint32_t runtime; /* enum agent_runtime */
    bool contained;   /* a container's or a pod's place, whole or not */
    bool conflict;    /* the hierarchies disagree: nothing of it is believed */
    char container_id[AGENT_CONTAINER_ID_MAX + 1]; /* "" if there is none, as below */
    char pod_uid[AGENT_POD_UID_MAX + 1];
    char unit[AGENT_UNIT_MAX + 1];
};
/* The text of /proc/PID/cgroup. own_prefix: the place that this agent's own container has there
 * (see below), "" if it is in none: what lies below it is a node of its own. false: not the text of
 * such a file. */
bool attest_cgroup_parse(const char *text, size_t len, struct str own_prefix,
                         struct attest_cgroup *ret);
/* The leftmost container in the agent's own /proc/self/cgroup; "" if there is none. */
void attest_cgroup_own_prefix(const char *text, size_t len, char ret[ATTEST_CGROUP_PREFIX_MAX + 1]);

/* --- mounts ----------------------------------------------------------------------------------- */
/* The mount ids of our namespace, read again when the kernel says that they changed. */
struct attest_mounts {
    int fd; /* /proc/self/mountinfo; owned */
    bool valid;
    uint64_t *ids; /* owned, sorted */
    size_t n, cap;
};
/* whose: "self", or a process's number. */
int attest_mounts_init(struct attest_mounts *m, int proc_fd, const char *whose, struct err *err);
void attest_mounts_deinit(struct attest_mounts *m);
bool attest_mounts_has(struct attest_mounts *m, uint64_t id);
/* Whether the mount is one of that process's own, of a file system whose content nobody but root
 * and the disk make up: no FUSE, nothing over a network. */
bool attest_mount_is_plain(int proc_dir_fd, uint64_t id);

/* --- facts ------------------------------------------------------------------------------------ */
/* Which content an executable has, as far as that can be told without reading it. */
struct attest_exe_key {
    uint64_t dev, ino, size;
    int64_t mtime_s, ctime_s;
    uint32_t mtime_ns, ctime_ns;
};

struct attest_facts {
    uint32_t uid, gid;   /* effective, as our user namespace counts */
    uint64_t start_time; /* clock ticks since boot */
    uint64_t read_ms;
    struct attest_groups groups;
    struct attest_cgroup cgroup;
    bool own_view;  /* in our mount and user namespaces */
    bool own_users; /* in our user namespace */
    bool contained; /* by its control group, or by a namespace that is none of ours */
    bool has_exe;   /* what follows is known */
    uint64_t exe_mount;
    struct attest_exe_key exe;
    size_t path_len; /* 0: unknown, or of another file system view than ours */
    char path[AGENT_PATH_MAX + 1];
};
/* Everything but the two times. */
bool attest_facts_same(const struct attest_facts *a, const struct attest_facts *b);

/* A process, pinned: whatever is read through dir_fd while the pidfd lives is about it. */
struct attest_process {
    int pidfd;  /* owned */
    int dir_fd; /* /proc/PID; owned */
    pid_t pid;  /* for logs */
};

/* What is needed to look at processes. */
struct attest_view {
    int proc_fd; /* /proc; owned */
    bool force_fallback;
    bool sees_all; /* CAP_SYS_PTRACE: what is not seen of a process is hidden by more than uid */
    struct attest_mounts mounts;
    char own_mount_ns[64], own_user_ns[64], own_pid_ns[64]; /* as readlink shows them */
    uint64_t root_dev, root_ino;
    char own_prefix[ATTEST_CGROUP_PREFIX_MAX + 1];
};
int attest_view_init(struct attest_view *v, struct err *err);
void attest_view_deinit(struct attest_view *v);

/* The process that connected, and its facts. AGENT_ATTEST_GONE: it has ended, whoever holds the
 * socket now. On anything but OK nothing is returned; *ret_why (a constant) says why for the log.
 */
enum agent_attest attest_process_open(struct attest_view *v, int sock, struct attest_process *ret,
                                      struct attest_facts *ret_facts, const char **ret_why);
/* A process by its number, for people: it is that of the moment of the call. */
enum agent_attest attest_process_open_pid(struct attest_view *v, pid_t pid,
                                          struct attest_process *ret,
                                          struct attest_facts *ret_facts, const char **ret_why);
/* Reads the facts of the same process once more. All are of one moment: whoever changes in between
 * is read anew, a few times; then FAILED. */
enum agent_attest attest_process_read(struct attest_view *v, const struct attest_process *p,
                                      struct attest_facts *ret_facts, const char **ret_why);
void attest_process_close(struct attest_process *p);

/* --- the digest of an executable -------------------------------------------------------------- */
struct attest_sha256 {
    uint32_t state[8];
    uint64_t n; /* bytes so far */
    uint8_t block[64];
};
void attest_sha256_init(struct attest_sha256 *s);
void attest_sha256_add(struct attest_sha256 *s, const void *data, size_t len);
void attest_sha256_end(struct attest_sha256 *s, uint8_t ret[AGENT_SHA256_SIZE]);

/* Whether the bytes of what the process runs are nobody's invention: see attest_mount_is_plain. */
bool attest_exe_believable(const struct attest_process *p, const struct attest_facts *facts,
                           const char **ret_why);
/* Opens what the process runs, to be read; the file is the one of its facts. -1: its content is not
 * to be had or not to be believed, *ret_why (a constant) says why. The descriptor is the caller's.
 */
int attest_exe_open(const struct attest_process *p, const struct attest_facts *facts,
                    uint64_t max_bytes, const char **ret_why);
/* Reads and adds at most `budget` bytes. 1: there is more; 0: *ret is the digest; -1: the file
 * cannot be read, or is no longer the one of the key. */
int attest_exe_hash(int fd, const struct attest_exe_key *key, struct attest_sha256 *s,
                    size_t budget, uint8_t ret[AGENT_SHA256_SIZE]);
bool attest_exe_same(const struct attest_exe_key *a, const struct attest_exe_key *b);

#endif
