/* Where a client wanted to go, as the test says. */
#include "redirected.h"

#include <arpa/inet.h>
#include <postern/net.h>
#include <stdatomic.h>

static _Atomic uint16_t port_now;

static struct net_addr address(uint32_t ip, uint16_t port)
{
    struct net_addr a = {.len = sizeof(struct sockaddr_in)};
    a.in4 = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(ip)}};
    return a;
}

static const uint32_t ORIGINAL_IP = 0xc0000207; /* 192.0.2.7 */

void redirected_port(uint16_t port)
{
    atomic_store(&port_now, port);
}

bool __wrap_net_original_dst(int fd, struct net_addr *ret);
bool __wrap_net_original_dst(int fd, struct net_addr *ret)
{
    (void)fd;
    *ret = address(ORIGINAL_IP, atomic_load(&port_now));
    return true;
}

int __real_net_dial(const struct net_addr *to, bool *ret_done);
int __wrap_net_dial(const struct net_addr *to, bool *ret_done);
int __wrap_net_dial(const struct net_addr *to, bool *ret_done)
{
    struct net_addr original = address(ORIGINAL_IP, net_addr_port(to));
    struct net_addr here = address(INADDR_LOOPBACK, net_addr_port(to));
    return __real_net_dial(net_addr_same_host(to, &original) ? &here : to, ret_done);
}
