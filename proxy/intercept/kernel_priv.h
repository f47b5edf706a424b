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

/* Where the path stands in the cgroup2 hierarchy, and how deep. */
int cgroup_resolve(const char *path, struct intercept_cgroup *ret, struct err *err);
/* Shows that a rule for it matches a process inside and none outside. A wrong level is no error to
 * the kernel: such a rule just never matches, and the proxy would be redirected to itself. */
int cgroup_prove(struct kernel *k, const struct intercept_cgroup *cgroup, struct err *err);

/* 0: the kernel's table is what the options ask for; 1: it is not, and `out` says what differs; -1:
 * it could not be told. */
int compare_tables(struct kernel *k, const struct intercept_options *o,
                   const struct intercept_cgroup *cgroup, struct buf *out, struct err *err);

#endif
