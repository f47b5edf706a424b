/* policy_ref_facts: what a fact is, and whether a list holds it; for policy_ref. */
#ifndef TESTS_POLICY_REF_FACTS_H
#define TESTS_POLICY_REF_FACTS_H

#include <postern/policy.h>

bool policy_ref_any_target(const struct conf_strings *list, struct str id);
bool policy_ref_any_principal(const struct conf_strings *list, struct str id);
bool policy_ref_any_exact(const struct conf_strings *list, struct str text);
bool policy_ref_any_text(const struct conf_strings *list, struct str text);
bool policy_ref_any_host(const struct conf_strings *list, struct str host);
bool policy_ref_any_path(const struct conf_strings *list, struct str path);
bool policy_ref_any_port(const uint16_t *ports, size_t n, uint16_t port);
/* Empty, false: there is none. */
struct str policy_ref_trust_domain_of(struct str id);
bool policy_ref_kubernetes_of(struct str id, struct str *ret_ns, struct str *ret_account);
bool policy_ref_grpc_of(struct str path, struct str *ret);

/* An address as family and bits; IPv4 written as IPv6 is IPv4. */
struct ref_address {
    int family;
    uint8_t bytes[16];
    unsigned prefix_len;
};
bool policy_ref_source_address(const struct sockaddr *sa, struct ref_address *ret);
bool policy_ref_any_block(const struct conf_cidrs *list, const struct ref_address *a);

/* Into room, from *used on. False: servers read it in more than one way. */
bool policy_ref_decode_parameter(struct str in, char *room, size_t *used, struct str *ret);

#endif
