#include <postern/kubelet.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

void kubelet_host_text(const struct sockaddr_storage *address, bool with_port, char *ret_text,
                       size_t size)
{
    char ip[INET6_ADDRSTRLEN] = "?";
    unsigned port;
    bool v6 = address->ss_family == AF_INET6;

    if (v6) {
        struct sockaddr_in6 in6;

        memcpy(&in6, address, sizeof(in6));
        (void)inet_ntop(AF_INET6, &in6.sin6_addr, ip, sizeof(ip));
        port = ntohs(in6.sin6_port);
    } else {
        struct sockaddr_in in;

        memcpy(&in, address, sizeof(in));
        (void)inet_ntop(AF_INET, &in.sin_addr, ip, sizeof(ip));
        port = ntohs(in.sin_port);
    }
    if (with_port) {
        (void)snprintf(ret_text, size, v6 ? "[%s]:%u" : "%s:%u", ip, port);
    } else {
        (void)snprintf(ret_text, size, "%s", ip);
    }
}
