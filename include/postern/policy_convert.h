/*
 * policy_convert: Istio's AuthorizationPolicy and PeerAuthentication and Kubernetes' NetworkPolicy,
 * said again as a Policy file. What each becomes, and what has no counterpart:
 * docs/policy-convert.md.
 *
 * Nothing is half converted: a field without a counterpart is an error that names it with
 * file:line:column, and then there is no policy. A doubt is told where what comes out means what
 * went in only under a condition that nobody can see here.
 *
 * Pure: texts in, text out; bounded. Thread: any.
 */
#ifndef POSTERN_POLICY_CONVERT_H
#define POSTERN_POLICY_CONVERT_H

#include <postern/buf.h>
#include <postern/conf.h>
#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Texts are lent until policy_convert_free. */
struct policy_convert_options {
    const char *trust_domain;      /* of the mesh; NULL: cluster.local */
    const char *root_namespace;    /* Istio's; NULL: istio-system */
    const char *default_namespace; /* of objects that name none; NULL: default */
    bool tcp_ports_known;          /* those below are all that carry something else than HTTP */
    const uint16_t *tcp_ports;
    size_t n_tcp_ports;
    bool no_implied_allow; /* what nothing is said of is denied, and not allowed as there */
    bool ignore_egress;
};
struct policy_convert;

struct policy_convert *policy_convert_new(const struct policy_convert_options *o);
struct policy_convert *policy_convert_free(struct policy_convert *c);
/* The objects of one file, of any number; what is no policy tells whom labels select. The text is
 * not kept. */
void policy_convert_add(struct policy_convert *c, const char *name, struct str text);
/* Once, after the last file: a Policy file, in its canonical form. -1: errors say why, or `err`
 * does where it is about no place in a file. */
int policy_convert_write(struct policy_convert *c, struct buf *out, struct err *err);
/* Lent. */
const struct conf_diag *policy_convert_errors(const struct policy_convert *c);
const struct conf_diag *policy_convert_doubts(const struct policy_convert *c);

#endif
