/*
 * What the files of postern-intercept share: the kernel's nftables, through libnftables, and the
 * cgroup by which the proxy is known. Only this executable links libnftables.
 */
#ifndef POSTERN_INTERCEPT_KERNEL_PRIV_H
#define POSTERN_INTERCEPT_KERNEL_PRIV_H

#include <postern/intercept.h>

struct kernel;

/* NULL when the kernel has no nftables at all. */
struct kernel *kernel_open(struct err *err);
struct kernel *kernel_free(struct kernel *k);
/* Runs a batch: all of it, or none. */
int kernel_run(struct kernel *k, const char *batch, struct err *err);
/* The table as the kernel lists it; *ret_there says whether there is one. */
int kernel_list(struct kernel *k, const char *table, struct buf *out, bool *ret_there,
                struct err *err);

/* From here on batches are not read as a file, which a sandbox would refuse; what is refused of
 * them is then shown without its line. */
void kernel_from_memory(struct kernel *k);

/* Puts all of it into force: what the table needs beside it first, then the table at once. */
int apply_rules(struct kernel *k, const struct intercept_options *o,
                const struct intercept_cgroup *cgroup, struct err *err);

/* On stderr: what is in force now, and what is not. */
void tell_applied(const struct intercept_options *o);

/* Applies, says so, then mends what changes until it is asked to end. -1: it could not begin. */
int watch_rules(struct kernel *k, const struct intercept_options *o,
                const struct intercept_cgroup *cgroup, struct err *err);

/* Where the path stands in the cgroup2 hierarchy, and how deep. */
int cgroup_resolve(const char *path, struct intercept_cgroup *ret, struct err *err);
/* Shows that a rule for it matches a process inside and none outside. A wrong level is no error to
 * the kernel: such a rule just never matches, and the proxy would be redirected to itself. */
int cgroup_prove(struct kernel *k, const struct intercept_cgroup *cgroup, struct err *err);

/* The way of the workload's answers, with TPROXY. Applied again it changes nothing. */
int routes_apply(const struct intercept_options *o, struct err *err);
/* As compare_tables. */
int routes_check(const struct intercept_options *o, struct buf *out, struct err *err);
/* Whatever of it there is. */
void routes_remove(void);
/* As comments beside the rules. */
void routes_print(const struct intercept_options *o, struct buf *out);

/* Whether two listings differ, and how. */
bool compare_listings(struct str want, struct str have, struct buf *out);
/* 0: the kernel's table is what the options ask for; 1: it is not, and `out` says what differs; -1:
 * it could not be told. */
int compare_tables(struct kernel *k, const struct intercept_options *o,
                   const struct intercept_cgroup *cgroup, struct buf *out, struct err *err);

#endif
