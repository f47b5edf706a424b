/*
 * probes: a sidecar answers a kubelet's probes by asking the workload itself.
 *
 * A kubelet has no identity and speaks plaintext, so an intercepted port does not take its
 * questions. It asks here instead, `GET /probe/NAME`, and the proxy asks the workload at the same
 * address of the pod: by a connection, or by one GET, whose status (and nothing else of the answer)
 * is passed on; or by one call of gRPC's health service. What may be asked is a list of the
 * configuration; nothing that a caller sends reaches the workload.
 *
 * Main thread, on its loop. Bounded: PROBES_AT_ONCE callers, each with a deadline; further ones are
 * closed. Owned by the caller of probes_new.
 */
#ifndef POSTERN_PROBES_H
#define POSTERN_PROBES_H

#include <postern/buf.h>
#include <postern/conf.h>
#include <postern/loop.h>

enum { PROBES_AT_ONCE = 64, PROBES_HEAD_MAX = 4096, PROBES_STATUS_MAX = 512 };

struct probes;
/* Listens. `conf` is lent for as long as this lives, as is the loop. */
struct probes *probes_new(struct loop *loop, const struct conf_proxy *conf, struct err *err);
struct probes *probes_free(struct probes *p);

/* --- pure parts ------------------------------------------------------------------------------- */
enum probes_parsed { PROBES_MORE, PROBES_BAD, PROBES_DONE };
/* A caller's request, up to the end of its head: the target of a GET by HTTP/1.0 or 1.1. */
enum probes_parsed probes_read_head(struct str text, struct str *ret_target);
/* The first line of the workload's answer. */
enum probes_parsed probes_read_status(struct str text, unsigned *ret_status);
/* grpc.health.v1.HealthCheckRequest; false: it does not fit. */
bool probes_write_health(const char *service, struct buf *out);
/* HealthCheckResponse: whether it says SERVING. What cannot be read says nothing. */
bool probes_read_health(struct str message);
/* The request to the workload; false: it does not fit. `address` stands for an absent host. */
bool probes_write_request(const struct conf_probe *probe, const char *address, struct buf *out);

#endif
