/*
 * conf_policy_context: what a policy of Istio's or Kubernetes' does not say itself, and whoever
 * reads one has to know: docs/policy-convert.md.
 */
#ifndef POSTERN_CONF_POLICY_CONTEXT_H
#define POSTERN_CONF_POLICY_CONTEXT_H

#include <postern/conf_lists.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conf_policy_context {
    char *trust_domain;   /* NULL: that of the own identity */
    char *namespace;      /* NULL: that of the own identity, as far as it is known */
    char *root_namespace; /* Istio's */
    bool labels_said;
    struct conf_strings labels; /* of the own workload: KEY=VALUE */
    uint16_t *tcp_ports;        /* of an Agent: all that carry no HTTP */
    size_t n_tcp_ports;
    bool tcp_ports_none, tcp_ports_said;
    bool implied_allow, ignore_egress;
};

#endif
