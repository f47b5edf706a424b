/* ruleset: options to nftables text. The order of the rules is the meaning: the first that matches
 * decides, so whatever must never be redirected stands before the redirect. */
#include <postern/intercept.h>

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

/* A rule that is missing because there was no room would be a hole: there is always room. */
__attribute__((format(printf, 2, 3))) static void put(struct buf *out, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    bool ok = buf_vprintf(out, fmt, ap);
    va_end(ap);
    POSTERN_ASSERT(ok);
}

static void put_ports(struct buf *out, const struct intercept_ports *list, size_t n)
{
    if (n == 0) {
        return;
    }
    put(out, "\t\ttcp dport { ");
    for (size_t i = 0; i < n; i++) {
        put(out, "%s%u", i > 0 ? ", " : "", list[i].first);
        if (list[i].last != list[i].first) {
            put(out, "-%u", list[i].last);
        }
    }
    put(out, " } accept\n");
}

static void put_blocks(struct buf *out, const struct intercept_options *o, int family)
{
    size_t n = 0;
    for (size_t i = 0; i < o->n_exclude_blocks; i++) {
        const struct intercept_block *b = &o->exclude_blocks[i];
        char text[INET6_ADDRSTRLEN];
        if (b->family != family) {
            continue;
        }
        inet_ntop(family, b->addr, text, sizeof(text));
        put(out, n++ == 0 ? "\t\t%s daddr { " : ", ", family == AF_INET ? "ip" : "ip6");
        put(out, "%s/%u", text, b->prefix_len);
    }
    if (n > 0) {
        put(out, " } accept\n");
    }
}

/* Any first packet is redirected and not only a SYN: a stray one could otherwise have the kernel
 * track a connection as untranslated, and the SYN that follows would pass by. */
static void put_outbound(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                         struct buf *out)
{
    put(out, "\tchain outbound {\n"
             "\t\ttype nat hook output priority -100; policy accept;\n"
             "\t\tfib daddr type local accept\n");
    if (cgroup != NULL) {
        put(out, "\t\tsocket cgroupv2 level %u \"%s\" accept\n", cgroup->level, cgroup->path);
    } else {
        put(out, "\t\tmeta skuid %u accept\n", (unsigned)o->proxy_uid);
    }
    if (o->ipv4_only) {
        put(out, "\t\tmeta nfproto ipv6 accept\n");
    }
    put_ports(out, o->exclude_outbound, o->n_exclude_outbound);
    put_blocks(out, o, AF_INET);
    put_blocks(out, o, AF_INET6);
    put(out, "\t\tmeta l4proto tcp redirect to :%u\n\t}\n", o->outbound_port);
}

/* What comes over loopback was sent by this machine and has been through `outbound`; what is for
 * another machine only passes. Connections to the listeners themselves are left as they are, for
 * the guard to see. */
static void put_inbound(const struct intercept_options *o, struct buf *out)
{
    put(out, "\tchain inbound {\n"
             "\t\ttype nat hook prerouting priority -100; policy accept;\n"
             "\t\tiifname \"lo\" accept\n"
             "\t\tfib daddr type != local accept\n");
    if (o->ipv4_only) {
        put(out, "\t\tmeta nfproto ipv6 accept\n");
    }
    if (o->outbound) {
        put(out, "\t\ttcp dport %u accept\n", o->outbound_port);
    }
    put(out, "\t\ttcp dport %u accept\n", o->inbound_port);
    put_ports(out, o->exclude_inbound, o->n_exclude_inbound);
    put(out, "\t\tmeta l4proto tcp redirect to :%u\n\t}\n", o->inbound_port);
}

/*
 * A chain of type nat is asked once for each tracked connection, so a connection that the kernel
 * tracked before the rules came, or that another rule translated, would pass it by. The guard looks
 * at every packet instead: what arrives for this machine and is not on its way to the inbound
 * listener, nor excluded, is reset. The last rule speaks of the direction in which a connection was
 * opened, so answers to what this machine opened pass.
 *
 * The first two are about the listeners' own ports: whoever connects to one directly would choose
 * the original destination himself. A reset, and not silence: that is what a closed port says.
 */
static void put_guard(const struct intercept_options *o, struct buf *out)
{
    put(out, "\tchain guard {\n"
             "\t\ttype filter hook input priority 0; policy accept;\n");
    if (o->outbound) {
        put(out, "\t\ttcp dport %u ct status & dnat == 0 reject with tcp reset\n",
            o->outbound_port);
    }
    if (o->inbound) {
        put(out,
            "\t\ttcp dport %u ct status & dnat == 0 reject with tcp reset\n"
            "\t\tiifname \"lo\" accept\n",
            o->inbound_port);
        if (o->ipv4_only) {
            put(out, "\t\tmeta nfproto ipv6 accept\n");
        }
        put_ports(out, o->exclude_inbound, o->n_exclude_inbound);
        put(out, "\t\ttcp dport != %u ct direction original reject with tcp reset\n",
            o->inbound_port);
    }
    put(out, "\t}\n");
}

void intercept_table(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                     const char *name, bool shadow, struct buf *out)
{
    put(out, "table inet %s {\n%s", name, shadow ? "\tflags dormant;\n\tflags owner;\n" : "");
    if (o->outbound) {
        put_outbound(o, cgroup, out);
    }
    if (o->inbound) {
        put_inbound(o, out);
    }
    put_guard(o, out);
    put(out, "}\n");
}

void intercept_batch(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                     struct buf *out)
{
    put(out, "add table inet postern\ndelete table inet postern\n");
    intercept_table(o, cgroup, "postern", false, out);
}
