/* proxy_protocol: what the listeners of both kinds of file say about the PROXY protocol. */
#include <postern/conf.h>

#include <string.h>

#include "config_priv.h"

const char *const words_proxy_protocol[] = {"none", "v1", "v2", "v2-tls", "v2-tls-full", NULL};

enum {
    TLV_UNIQUE_ID = 0x05,
    TLV_PRIVATE_MIN = 0xe0, /* custom, then experimental */
    TLV_PRIVATE_MAX = 0xf7,
};

bool conf_cidrs_hold(const struct conf_cidrs *blocks, const struct sockaddr *sa)
{
    uint8_t addr[16] = {0};
    if (sa->sa_family == AF_INET) {
        memcpy(addr, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
    } else if (sa->sa_family == AF_INET6) {
        memcpy(addr, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
    } else {
        return false;
    }
    for (size_t i = 0; i < blocks->n; i++) {
        const struct conf_cidr *c = &blocks->items[i];
        size_t whole = c->prefix_len / 8U;
        unsigned rest = c->prefix_len % 8U;
        unsigned mask = 0xffU << (8U - rest);
        if (c->family == sa->sa_family && memcmp(c->addr, addr, whole) == 0 &&
            (rest == 0 || (((unsigned)c->addr[whole] ^ addr[whole]) & mask & 0xffU) == 0)) {
            return true;
        }
    }
    return false;
}

static bool may_pass(const struct conf_listener *l, unsigned type)
{
    return (type == TLV_UNIQUE_ID || (type >= TLV_PRIVATE_MIN && type <= TLV_PRIVATE_MAX)) &&
           type != l->proxy_protocol_id_tlv;
}

void proxy_protocol_check(struct context *c, const struct node *map, const struct conf_listener *l)
{
    const struct node *pass = node_get(map, "proxy_protocol_pass");
    if (pass == NULL) {
        return;
    }
    if (node_get(map, "proxy_protocol_from") == NULL) {
        report(c, pass->key, "'proxy_protocol_from' beside it", NULL,
               "'proxy_protocol_pass' where no header is taken from anybody");
    }
    if (l->proxy_protocol < CONF_PROXY_PROTOCOL_V2) {
        report(c, pass->key, "'proxy_protocol: v2' beside it", "only version 2 has TLVs",
               "'proxy_protocol_pass' where the target gets none");
    }
    const struct node *n = pass->child;
    for (size_t i = 0; i < l->n_proxy_protocol_pass && n != NULL; i++, n = n->next) {
        unsigned type = l->proxy_protocol_pass[i];
        if (type != 0 && !may_pass(l, type)) {
            report(c, n, "5, or a number from 224 to 247",
                   "the others are ours to say, of what is known here", "%u cannot be passed on",
                   type);
        }
    }
}
