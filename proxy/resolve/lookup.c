/* One name: the hosts file, else the name servers; what can be reached comes first. */
#include "resolver_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <resolv.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    HOSTS_FILE_MAX = 1024 * 1024,
    HOSTS_TTL_S = 5, /* a file may change at any time */
    ANSWER_MAX = 65536,
    CLASS_IN = 1,
    DISCARD_PORT = 9, /* no packet is ever sent there */
};

/* --- files ------------------------------------------------------------------------------------ */

static bool in_hosts(const char *host, struct addresses *to)
{
    os_autofd int fd = open("/etc/hosts", O_RDONLY | O_CLOEXEC);
    if (fd == -1) {
        return false;
    }
    struct buf text = BUF_INIT(HOSTS_FILE_MAX);
    for (;;) {
        uint8_t *at = buf_reserve(&text, 4096);
        ssize_t n = at != NULL ? read(fd, at, 4096) : 0;
        if (n <= 0) {
            break;
        }
        buf_commit(&text, (size_t)n);
    }
    bool found = hosts_find(buf_str(&text), str_of(host), to);
    buf_reset(&text);
    if (found) {
        to->ttl_s = HOSTS_TTL_S;
    }
    return found;
}

/* --- name servers ----------------------------------------------------------------------------- */

/* Asks for one type; the search list of resolv.conf is gone through by the C library. */
static enum resolve_result ask(res_state state, const char *host, unsigned type,
                               struct addresses *to)
{
    static uint8_t answer[ANSWER_MAX];
    int n = res_nsearch(state, host, CLASS_IN, (int)type, answer, sizeof(answer));
    if (n < 0) {
        switch (state->res_h_errno) {
        case HOST_NOT_FOUND:
            return RESOLVE_NO_NAME;
        case NO_DATA:
            return RESOLVE_NO_ADDRESS;
        default:
            return RESOLVE_FAILURE;
        }
    }
    size_t before = to->n;
    size_t len = (size_t)n < sizeof(answer) ? (size_t)n : sizeof(answer);
    if (!dns_read_answer(answer, len, type, to)) {
        return RESOLVE_FAILURE;
    }
    return to->n > before ? RESOLVE_OK : RESOLVE_NO_ADDRESS;
}

static enum resolve_result ask_servers(const char *host, struct addresses *to)
{
    struct __res_state state;
    memset(&state, 0, sizeof(state));
    if (res_ninit(&state) != 0) {
        return RESOLVE_BROKEN;
    }
    enum resolve_result six = ask(&state, host, DNS_TYPE_AAAA, to);
    enum resolve_result four = ask(&state, host, DNS_TYPE_A, to);
    res_nclose(&state);
    if (six == RESOLVE_OK || four == RESOLVE_OK) {
        return RESOLVE_OK;
    }
    return six == RESOLVE_FAILURE ? six : four;
}

/* --- order ------------------------------------------------------------------------------------ */

/* Whether the kernel knows a way there: connecting a datagram socket sends nothing. */
static bool has_route(const struct resolve_address *a)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(DISCARD_PORT)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(DISCARD_PORT)};
    bool v4 = a->family == 4;
    memcpy(&in4.sin_addr, a->bytes, 4);
    memcpy(&in6.sin6_addr, a->bytes, 16);
    os_autofd int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd != -1 &&
           connect(fd, v4 ? (const struct sockaddr *)&in4 : (const struct sockaddr *)&in6,
                   v4 ? sizeof(in4) : sizeof(in6)) == 0;
}

/* RFC 6724, as far as it goes without scopes and labels: what has a route before what has none,
 * IPv6 before IPv4; else as it was given. */
static void put_in_order(const struct addresses *from, struct resolve_answer *ret)
{
    static const uint8_t families[] = {6, 4};
    bool routed[RESOLVE_ADDRS_MAX];
    for (size_t i = 0; i < from->n; i++) {
        routed[i] = has_route(&from->list[i]);
    }
    for (unsigned without = 0; without < 2; without++) {
        for (unsigned f = 0; f < 2; f++) {
            for (size_t i = 0; i < from->n; i++) {
                if (routed[i] == (without == 0) && from->list[i].family == families[f]) {
                    ret->addrs[ret->n++] = from->list[i];
                }
            }
        }
    }
}

void lookup(const char *host, struct resolve_answer *ret)
{
    struct addresses found = {.n = 0, .ttl_s = UINT32_MAX};
    ret->result = in_hosts(host, &found) ? RESOLVE_OK : ask_servers(host, &found);
    if (ret->result == RESOLVE_OK) {
        put_in_order(&found, ret);
        ret->ttl_s = found.ttl_s;
    }
}
