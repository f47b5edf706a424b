/*
 * What the files of the helper postern-resolver share.
 *
 *   main.c      its start, questions to children          privs.c   all that it may do
 *   lookup.c    one name, from files and name servers     dns.c     an answer of a name server
 *   hosts.c     /etc/hosts
 */
#ifndef POSTERN_RESOLVER_PRIV_H
#define POSTERN_RESOLVER_PRIV_H

#include "resolve_wire.h"

/* --- dns.c, hosts.c: pure --------------------------------------------------------------------- */
enum { DNS_TYPE_A = 1, DNS_TYPE_AAAA = 28 };

struct addresses {
    struct resolve_address list[RESOLVE_ADDRS_MAX];
    size_t n;
    uint32_t ttl_s; /* the least of what gave them */
};

/* The addresses of `type` in a name server's message; an answer without any is fine. False: it is
 * no such message. Whether it answers our question is known by whoever received it. */
bool dns_read_answer(const uint8_t *msg, size_t len, unsigned type, struct addresses *to);

/* Adds what the text of a hosts file says of a name. True: it is in there. */
bool hosts_find(struct str text, struct str host, struct addresses *to);

/* --- the process ------------------------------------------------------------------------------ */
void lookup(const char *host, struct resolve_answer *ret);
/* The process, and its children with it. */
int resolver_confine(struct err *err);
/* Each child, before it reads anything from outside. */
int resolver_confine_child(struct err *err);

#endif
