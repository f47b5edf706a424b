/* What the files of proxy/probes share. */
#ifndef POSTERN_PROBES_PRIV_H
#define POSTERN_PROBES_PRIV_H

#include <postern/probes.h>

/* One question by gRPC's health protocol over a connection; once answered, `fn` is called, never
 * from within probes_grpc_ask. The loop's thread. */
struct probes_grpc;
typedef void (*probes_grpc_fn)(void *arg, bool serving);
/* Takes fd over, also on failure; NULL: it cannot be asked. `service` may be empty. */
struct probes_grpc *probes_grpc_ask(struct loop *loop, int fd, const char *service,
                                    uint64_t deadline_ms, probes_grpc_fn fn, void *arg);
/* No call comes any more. Takes NULL. */
struct probes_grpc *probes_grpc_free(struct probes_grpc *g);

#endif
