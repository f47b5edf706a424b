/* conf_lists: lists that the structs of every kind of file are made of. See conf.h. */
#ifndef POSTERN_CONF_LISTS_H
#define POSTERN_CONF_LISTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct conf_strings {
    char **items;
    size_t n;
};

/* An address block; a plain address has the full prefix length. */
struct conf_cidr {
    int family;       /* AF_INET or AF_INET6 */
    uint8_t addr[16]; /* network order; first 4 bytes for AF_INET; host bits are zero */
    uint8_t prefix_len;
};
struct conf_cidrs {
    struct conf_cidr *items;
    size_t n;
};
/* Whether it is in one of them; IPv4 and IPv6 only, and never by an address that holds another. */
bool conf_cidrs_hold(const struct conf_cidrs *blocks, const struct sockaddr *sa);

#endif
