/* ruleset: options to nftables text. The order of the rules is the meaning: the first that matches
 * decides, so whatever must never be captured stands before the capture. What is refused is in
 * refusals.c. */
#include "ruleset_priv.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

/* A rule that is missing because there was no room would be a hole: there is always room. */
void rules_put(struct buf *out, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    bool ok = buf_vprintf(out, fmt, ap);
    va_end(ap);
    POSTERN_ASSERT(ok);
}

void rules_put_ports(struct buf *out, const char *protocol, const struct intercept_range *list,
                     size_t n, const char *then)
{
    if (n == 0) {
        return;
    }
    rules_put(out, "\t\t%s dport { ", protocol);
    for (size_t i = 0; i < n; i++) {
        rules_put(out, "%s%u", i > 0 ? ", " : "", list[i].first);
        if (list[i].last != list[i].first) {
            rules_put(out, "-%u", list[i].last);
        }
    }
    rules_put(out, " } %s\n", then);
}

static void put_family(struct buf *out, const struct intercept_block *list, size_t n, int family,
                       const char *then)
{
    size_t shown = 0;
    for (size_t i = 0; i < n; i++) {
        char text[INET6_ADDRSTRLEN];
        if (list[i].family != family) {
            continue;
        }
        inet_ntop(family, list[i].addr, text, sizeof(text));
        rules_put(out, shown++ == 0 ? "\t\t%s daddr { " : ", ", family == AF_INET ? "ip" : "ip6");
        rules_put(out, "%s/%u", text, list[i].prefix_len);
    }
    if (shown > 0) {
        rules_put(out, " } %s\n", then);
    }
}

void rules_put_blocks(struct buf *out, const struct intercept_block *list, size_t n,
                      const char *then)
{
    put_family(out, list, n, AF_INET, then);
    put_family(out, list, n, AF_INET6, then);
}

/* Whose connections are left alone: the proxy's own, and those of users that were named. */
void rules_put_exempt(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                      struct buf *out)
{
    if (cgroup != NULL) {
        rules_put(out, "\t\tsocket cgroupv2 level %u \"%s\" accept\n", cgroup->level, cgroup->path);
    } else {
        rules_put(out, "\t\tmeta skuid %u accept\n", (unsigned)o->proxy_uid);
    }
    if (o->n_exclude_uids == 0) {
        return;
    }
    rules_put(out, "\t\tmeta skuid { ");
    for (size_t i = 0; i < o->n_exclude_uids; i++) {
        const struct intercept_range *u = &o->exclude_uids[i];
        rules_put(out, "%s%u", i > 0 ? ", " : "", u->first);
        if (u->last != u->first) {
            rules_put(out, "-%u", u->last);
        }
    }
    rules_put(out, " } accept\n");
}

/* --- outbound --------------------------------------------------------------------------------- */
/* The canary takes the way of everybody else behind the exemptions, so that it shows the rules that
 * matter. Where the exclusions hold it too, it is captured by itself: they are not meant for it. */
static void put_outbound_canary(const struct intercept_options *o, struct buf *out)
{
    char then[40] = "goto outbound_rest";
    if (intercept_excludes_canary(o)) {
        snprintf(then, sizeof(then), "redirect to :%u", o->outbound_port);
    }
    rules_put(out, "\t\tip daddr " INTERCEPT_CANARY_4 " tcp dport %d %s\n", INTERCEPT_CANARY_PORT,
              then);
    if (!o->ipv4_only) {
        rules_put(out, "\t\tip6 daddr " INTERCEPT_CANARY_6 " tcp dport %d %s\n",
                  INTERCEPT_CANARY_PORT, then);
    }
}

/* Any first packet is redirected and not only a SYN: a stray one could otherwise have the kernel
 * track a connection as untranslated, and the SYN that follows would pass by. */
static void put_outbound_rest(const struct intercept_options *o, struct buf *out)
{
    char then[40];
    snprintf(then, sizeof(then), "redirect to :%u", o->outbound_port);
    rules_put(out, "\tchain outbound_rest {\n");
    if (o->ipv4_only) {
        rules_put(out, "\t\tmeta nfproto ipv6 accept\n");
    }
    rules_put_ports(out, "tcp", o->exclude_outbound, o->n_exclude_outbound, "accept");
    rules_put_blocks(out, o->exclude_blocks, o->n_exclude_blocks, "accept");
    if (o->n_include_outbound == 0 && o->n_include_blocks == 0) {
        rules_put(out, "\t\tmeta l4proto tcp %s\n\t}\n", then);
        return;
    }
    char tcp[60];
    snprintf(tcp, sizeof(tcp), "meta l4proto tcp %s", then);
    rules_put(out, "\t\tip daddr " INTERCEPT_CANARY_4 " %s\n", tcp);
    if (!o->ipv4_only) {
        rules_put(out, "\t\tip6 daddr " INTERCEPT_CANARY_6 " %s\n", tcp);
    }
    rules_put_ports(out, "tcp", o->include_outbound, o->n_include_outbound, then);
    rules_put_blocks(out, o->include_blocks, o->n_include_blocks, tcp);
    rules_put(out, "\t}\n");
}

static void put_outbound(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                         struct buf *out)
{
    put_outbound_rest(o, out);
    rules_put(out, "\tchain outbound {\n"
                   "\t\ttype nat hook output priority -100; policy accept;\n");
    put_outbound_canary(o, out);
    rules_put(out, "\t\tfib daddr type local accept\n");
    rules_put_exempt(o, cgroup, out);
    rules_put(out, "\t\tgoto outbound_rest\n\t}\n");
}

/* --- inbound ---------------------------------------------------------------------------------- */
void rules_put_hbone(const struct intercept_options *o, struct buf *out)
{
    if (o->hbone_port != 0) {
        rules_put(out, "\t\ttcp dport %u accept\n", o->hbone_port);
    }
}

static void put_own_ports(const struct intercept_options *o, struct buf *out)
{
    if (o->outbound) {
        rules_put(out, "\t\ttcp dport %u accept\n", o->outbound_port);
    }
    rules_put(out, "\t\ttcp dport %u accept\n", o->inbound_port);
    rules_put_hbone(o, out);
}

/* What comes over loopback was sent by this machine and has been through `outbound`; what is for
 * another machine only passes. Connections to the listeners themselves are left as they are, for
 * the guard to see. */
static void put_inbound_redirect(const struct intercept_options *o, struct buf *out)
{
    rules_put(out, "\tchain inbound {\n"
                   "\t\ttype nat hook prerouting priority -100; policy accept;\n"
                   "\t\tiifname \"lo\" accept\n"
                   "\t\tfib daddr type != local accept\n");
    if (o->ipv4_only) {
        rules_put(out, "\t\tmeta nfproto ipv6 accept\n");
    }
    put_own_ports(o, out);
    rules_put_ports(out, "tcp", o->exclude_inbound, o->n_exclude_inbound, "accept");
    rules_put(out, "\t\tmeta l4proto tcp redirect to :%u\n\t}\n", o->inbound_port);
}

/* Every packet is looked at here, and not only a connection's first: what the listener does not
 * take is refused at once, also what was open before. Over loopback comes, beside the canary, what
 * the proxy sends to the workload from its clients' addresses: never to be captured again. */
static void put_inbound_tproxy(const struct intercept_options *o, struct buf *out)
{
    rules_put(out, "\tchain inbound_rest {\n"
                   "\t\tct direction reply accept\n");
    put_own_ports(o, out);
    rules_put_ports(out, "tcp", o->exclude_inbound, o->n_exclude_inbound, "accept");
    rules_put(out,
              "\t\tmeta l4proto tcp tproxy to :%u accept\n"
              "\t\tct state invalid,untracked drop\n"
              "\t\treject with tcp reset\n\t}\n",
              o->inbound_port);
    rules_put(out,
              "\tchain inbound {\n"
              "\t\ttype filter hook prerouting priority -150; policy accept;\n"
              "\t\tmeta l4proto != tcp accept\n"
              "\t\tiifname \"lo\" ip daddr 127.0.0.1 tcp dport %d goto inbound_rest\n",
              INTERCEPT_INBOUND_CANARY_PORT);
    if (!o->ipv4_only) {
        rules_put(out, "\t\tiifname \"lo\" ip6 daddr ::1 tcp dport %d goto inbound_rest\n",
                  INTERCEPT_INBOUND_CANARY_PORT);
    }
    rules_put(out, "\t\tiifname \"lo\" accept\n"
                   "\t\tfib daddr type != local accept\n");
    if (o->ipv4_only) {
        rules_put(out, "\t\tmeta nfproto ipv6 accept\n");
    }
    rules_put(out, "\t\tgoto inbound_rest\n\t}\n");
}

/* The workload's answers to a client's address go back to the proxy: a route of their own
 * (routes.c) for what belongs to a connection that this machine opened from an address that is not
 * its own. A port of the client's that is in use already, on a connection of its own to the same
 * port, would have that one answer, and be reset: such a SYN does not leave. */
static void put_transparent(const struct intercept_options *o, struct buf *out)
{
    unsigned mark = o->tproxy_mark;
    rules_put(out,
              "\tchain transparent {\n"
              "\t\ttype route hook output priority -150; policy accept;\n"
              "\t\tct mark 0x%08x ct direction reply meta mark set 0x%08x accept\n"
              "\t\tmeta l4proto tcp fib saddr type != local fib daddr type local ct state new "
              "ct mark set 0x%08x\n"
              "\t\tfib saddr type != local tcp flags & (syn | ack) == syn ct mark != 0x%08x drop\n"
              "\t}\n",
              mark, mark, mark, mark);
}

/* --- the whole -------------------------------------------------------------------------------- */
void intercept_table(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                     const char *name, bool shadow, struct buf *out)
{
    rules_put(out, "table inet %s {\n%s", name, shadow ? "\tflags dormant;\n\tflags owner;\n" : "");
    if (o->outbound) {
        put_outbound(o, cgroup, out);
    }
    if (o->inbound && o->mode == INTERCEPT_TPROXY) {
        put_inbound_tproxy(o, out);
        put_transparent(o, out);
    } else if (o->inbound) {
        put_inbound_redirect(o, out);
    }
    rules_put_guard(o, out);
    rules_put_egress(o, cgroup, out);
    rules_put(out, "}\n");
}

void intercept_batch(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                     struct buf *out)
{
    rules_put(out, "add table inet postern\ndelete table inet postern\n");
    intercept_table(o, cgroup, "postern", false, out);
}
