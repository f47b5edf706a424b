/*
 * routes: with TPROXY the workload answers its clients' own addresses, and those answers have to
 * come to the proxy and not leave. The table marks them (`transparent`); here a rule sends what is
 * marked to a routing table of its own, in which everything is this machine. nftables knows no
 * routes, so this is netlink by hand: one request, one answer.
 */
#include "kernel_priv.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <postern/os.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The number of the table and of the rule, and in every namespace that of loopback. */
enum { ROUTE_TABLE = 15006, ROUTE_PRIORITY = 15006, LOOPBACK_INDEX = 1 };

struct request {
    struct nlmsghdr head;
    union {
        struct fib_rule_hdr rule;
        struct rtmsg route;
    };
    uint8_t attributes[96];
};

static void begin(struct request *r, uint16_t type, uint16_t flags, size_t body)
{
    *r = (struct request){.head = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(body),
                                   .nlmsg_type = type,
                                   .nlmsg_flags = NLM_F_REQUEST | flags}};
}

static void add(struct request *r, uint16_t type, const void *value, size_t n)
{
    size_t at = NLMSG_ALIGN(r->head.nlmsg_len);
    struct rtattr a = {.rta_type = type, .rta_len = (uint16_t)RTA_LENGTH(n)};
    POSTERN_ASSERT(at + RTA_SPACE(n) <= sizeof(*r));
    memcpy((uint8_t *)r + at, &a, sizeof(a));
    memcpy((uint8_t *)r + at + RTA_LENGTH(0), value, n);
    r->head.nlmsg_len = (uint32_t)(at + RTA_LENGTH(n));
}

static void add_u32(struct request *r, uint16_t type, uint32_t value)
{
    add(r, type, &value, sizeof(value));
}

/* Asks, and returns the kernel's verdict: 0, or an errno. *ret_type: of a route that it answered
 * with. -1: there is no answer, and err says why. */
static int ask(struct request *r, unsigned char *ret_type, struct err *err)
{
    union {
        struct nlmsghdr head;
        uint8_t bytes[4096];
    } answer;
    os_autofd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd == -1 || send(fd, r, r->head.nlmsg_len, 0) < 0) {
        return err_sys(err, "cannot speak to the kernel about routes");
    }
    ssize_t n = recv(fd, &answer, sizeof(answer), 0);
    if (n < 0) {
        return err_sys(err, "cannot hear from the kernel about routes");
    }
    if ((size_t)n >= NLMSG_LENGTH(sizeof(struct nlmsgerr)) &&
        answer.head.nlmsg_type == NLMSG_ERROR) {
        struct nlmsgerr e;
        memcpy(&e, NLMSG_DATA(&answer.head), sizeof(e));
        return -e.error;
    }
    if ((size_t)n >= NLMSG_LENGTH(sizeof(struct rtmsg)) && answer.head.nlmsg_type == RTM_NEWROUTE) {
        struct rtmsg route;
        memcpy(&route, NLMSG_DATA(&answer.head), sizeof(route));
        *ret_type = route.rtm_type;
        return 0;
    }
    return err_set(err, ERR_SYSTEM, "the kernel's answer about routes cannot be read");
}

static const char *family_name(int family)
{
    return family == AF_INET ? "IPv4" : "IPv6";
}

static int refused(int e, int family, const char *what, struct err *err)
{
    errno = e;
    err_sys(err, "cannot add the %s %s for answers to clients", family_name(family), what);
    if (e == EOPNOTSUPP || e == EAFNOSUPPORT) {
        return err_advise(err, "--inbound-mode tproxy needs a kernel with IP_MULTIPLE_TABLES and "
                               "IPV6_MULTIPLE_TABLES, or --ipv4-only");
    }
    return err_advise(err, e == ENETDOWN ? "ip link set lo up" : "it needs CAP_NET_ADMIN");
}

static void make_rule(struct request *r, uint16_t type, uint16_t flags, int family)
{
    begin(r, type, flags | NLM_F_ACK, sizeof(r->rule));
    r->rule = (struct fib_rule_hdr){.family = (uint8_t)family, .action = FR_ACT_TO_TBL};
    add_u32(r, FRA_PRIORITY, ROUTE_PRIORITY);
    add_u32(r, FRA_TABLE, ROUTE_TABLE);
}

static void make_route(struct request *r, uint16_t type, uint16_t flags, int family)
{
    begin(r, type, flags | NLM_F_ACK, sizeof(r->route));
    r->route = (struct rtmsg){.rtm_family = (uint8_t)family,
                              .rtm_table = RT_TABLE_UNSPEC,
                              .rtm_protocol = RTPROT_STATIC,
                              .rtm_scope = RT_SCOPE_HOST,
                              .rtm_type = RTN_LOCAL};
    add_u32(r, RTA_TABLE, ROUTE_TABLE);
    add_u32(r, RTA_OIF, LOOPBACK_INDEX);
}

static int apply_family(const struct intercept_options *o, int family, struct err *err)
{
    struct request r;
    unsigned char type;
    /* The route first: a rule that leads into an empty table would let answers out. */
    make_route(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, family);
    int e = ask(&r, &type, err);
    if (e != 0 && e != EEXIST) {
        return e == -1 ? -1 : refused(e, family, "route", err);
    }
    make_rule(&r, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, family);
    add_u32(&r, FRA_FWMARK, o->tproxy_mark);
    add_u32(&r, FRA_FWMASK, UINT32_MAX);
    e = ask(&r, &type, err);
    if (e != 0 && e != EEXIST) {
        return e == -1 ? -1 : refused(e, family, "rule", err);
    }
    return 0;
}

int routes_apply(const struct intercept_options *o, struct err *err)
{
    return apply_family(o, AF_INET, err) == 0 &&
                   (o->ipv4_only || apply_family(o, AF_INET6, err) == 0)
               ? 0
               : -1;
}

/* Whether what is marked comes to this machine: the kernel is asked for the way of such a packet,
 * so that a rule of somebody else's in front of ours is seen as well. */
static int there(const struct intercept_options *o, int family, bool *ret, struct err *err)
{
    static const uint8_t any[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1}; /* of documentation */
    static const uint8_t any4[4] = {192, 0, 2, 1};                     /* likewise */
    struct request r;
    unsigned char type = RTN_UNSPEC;
    bool v4 = family == AF_INET;
    begin(&r, RTM_GETROUTE, 0, sizeof(r.route));
    r.route = (struct rtmsg){.rtm_family = (uint8_t)family, .rtm_dst_len = v4 ? 32 : 128};
    add(&r, RTA_DST, v4 ? any4 : any, v4 ? sizeof(any4) : sizeof(any));
    add_u32(&r, RTA_MARK, o->tproxy_mark);
    int e = ask(&r, &type, err);
    if (e == -1) {
        return -1;
    }
    *ret = e == 0 && type == RTN_LOCAL;
    return 0;
}

int routes_check(const struct intercept_options *o, struct buf *out, struct err *err)
{
    const int families[] = {AF_INET, AF_INET6};
    int rc = 0;
    for (size_t i = 0; i < (o->ipv4_only ? 1 : 2); i++) {
        bool is = false;
        if (there(o, families[i], &is, err) != 0) {
            return -1;
        }
        if (!is) {
            buf_printf(out, "missing:    %s: what is marked %u is routed to this machine\n",
                       family_name(families[i]), o->tproxy_mark);
            rc = 1;
        }
    }
    return rc;
}

void routes_remove(void)
{
    enum { RULES_MAX = 16 };
    const int families[] = {AF_INET, AF_INET6};
    for (size_t i = 0; i < 2; i++) {
        struct request r;
        struct err err = ERR_INIT;
        unsigned char type;
        int e = 0;
        /* Of each mark that was ever used one. */
        for (int k = 0; e == 0 && k < RULES_MAX; k++) {
            make_rule(&r, RTM_DELRULE, 0, families[i]);
            e = ask(&r, &type, &err);
        }
        make_route(&r, RTM_DELROUTE, 0, families[i]);
        (void)ask(&r, &type, &err); /* there may be none, or no such family */
    }
}

void routes_print(const struct intercept_options *o, struct buf *out)
{
    for (int v = 4; v <= (o->ipv4_only ? 4 : 6); v += 2) {
        bool ok = buf_printf(out,
                             "# ip -%d route add local default dev lo table %d\n"
                             "# ip -%d rule add fwmark %u lookup %d pref %d\n",
                             v, ROUTE_TABLE, v, o->tproxy_mark, ROUTE_TABLE, ROUTE_PRIORITY);
        POSTERN_ASSERT(ok);
    }
}
