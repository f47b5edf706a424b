/* What the files that write rules share. */
#ifndef POSTERN_INTERCEPT_RULESET_PRIV_H
#define POSTERN_INTERCEPT_RULESET_PRIV_H

#include <postern/intercept.h>

void rules_put(struct buf *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The port where sessions come to their listener, if there is one. */
void rules_put_hbone(const struct intercept_options *o, struct buf *out);
/* One rule for the whole list, none for an empty one. `then` is what follows the match. */
void rules_put_ports(struct buf *out, const char *protocol, const struct intercept_range *list,
                     size_t n, const char *then);
void rules_put_blocks(struct buf *out, const struct intercept_block *list, size_t n,
                      const char *then);
void rules_put_exempt(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                      struct buf *out);

/* refusals.c */
void rules_put_guard(const struct intercept_options *o, struct buf *out);
void rules_put_egress(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                      struct buf *out);

#endif
