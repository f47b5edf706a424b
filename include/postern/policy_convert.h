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

/* Ports in any order. */
struct policy_convert_ports {
    uint16_t *items;
    size_t n;
};

/* Texts are lent until policy_convert_free. */
struct policy_convert_options {
    const char *trust_domain;      /* of the mesh; NULL: cluster.local */
    const char *root_namespace;    /* Istio's; NULL: istio-system */
    const char *default_namespace; /* of objects that name none; NULL: default */
    bool tcp_ports_known;          /* those below are all that carry something else than HTTP */
    struct policy_convert_ports tcp_ports;
    bool no_implied_allow; /* what nothing is said of is denied, and not allowed as there */
    bool ignore_egress;

    /* What reads files in place of ours: names of keys in advice, nothing taken for granted. */
    bool strict;
    /* For one workload, strict: what it knows of itself. A policy that does not select it becomes
     * no rule, and what comes out means something to it alone. */
    bool own;
    const char *own_namespace; /* NULL: not known */
    bool own_labels_known;
    struct conf_strings own_labels; /* KEY=VALUE */
    bool tcp_rest;                  /* all ports but http_ports carry something else than HTTP */
    struct policy_convert_ports http_ports;  /* with tcp_rest */
    struct policy_convert_ports plain_ports; /* that take plaintext */
    /* Where what is found goes; NULL: the conversion's own. */
    struct conf_diag *errors, *doubts;
};
struct policy_convert;

struct policy_convert *policy_convert_new(const struct policy_convert_options *o);
struct policy_convert *policy_convert_free(struct policy_convert *c);
/* The objects of one file, of any number; what is no policy tells whom labels select. The text is
 * not kept. */
void policy_convert_add(struct policy_convert *c, const char *name, struct str text);
/* Once, after the last file: a Policy file, not yet in its canonical form, that conf_parse_policy
 * takes; comments alone where no policy was given. -1: errors say why, or `err` does where it is
 * about no place in a file. */
int policy_convert_write(struct policy_convert *c, struct buf *out, struct err *err);
/* After that: whether any policy was given; the line in its file of what became the rule; at least
 * that of the rule before. */
bool policy_convert_has_policy(const struct policy_convert *c);
size_t policy_convert_count(const struct policy_convert *c);
unsigned policy_convert_line(const struct policy_convert *c, size_t rule);
/* Lent. */
const struct conf_diag *policy_convert_errors(const struct policy_convert *c);
const struct conf_diag *policy_convert_doubts(const struct policy_convert *c);

#endif
