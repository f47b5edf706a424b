/*
 * held_port: a free port of 127.0.0.1 that stays this test's own. Nobody listens there, and who
 * connects is refused, until something listens that shares ports as the product's listeners do.
 * (A port that was only looked up is anybody's meanwhile.)
 */
#ifndef POSTERN_TESTS_HELD_PORT_H
#define POSTERN_TESTS_HELD_PORT_H

#include <arpa/inet.h>
#include <stdint.h>
#include <sys/socket.h>

/* A descriptor to close when the port is not needed any more. -1: none. */
static inline int held_port(uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(a);
    int one = 1;
    *ret_port = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) == -1 ||
        bind(fd, (struct sockaddr *)&a, len) == -1 ||
        getsockname(fd, (struct sockaddr *)&a, &len) == -1) {
        return -1;
    }
    *ret_port = ntohs(a.sin_port);
    return fd;
}

#endif
