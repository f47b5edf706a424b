/* refusals: what is let in or out by no rule. */
#include "ruleset_priv.h"

/* Transports beside TCP: none is carried. */
#define DATAGRAMS "meta l4proto { udp, udplite, sctp, dccp }"

/*
 * A chain of type nat is asked once for each tracked connection, so a connection that the kernel
 * tracked before the rules came, or that another rule translated, would pass it by. The guard looks
 * at every packet instead: what arrives for this machine and is not on its way to the inbound
 * listener, nor excluded, is reset. The last rule speaks of the direction in which a connection was
 * opened, so answers to what this machine opened pass. A packet of no connection has no direction,
 * and is dropped: a reset would end whatever connection it pretends to be of.
 *
 * The first are about the listeners' own ports: whoever connects to one directly would choose the
 * original destination himself. A reset, and not silence: that is what a closed port says. With
 * TPROXY nothing ever arrives at the listener's own port, and the rest has been seen to in
 * `inbound`.
 */
void rules_put_guard(const struct intercept_options *o, struct buf *out)
{
    bool redirected = o->inbound && o->mode == INTERCEPT_REDIRECT;
    rules_put(out, "\tchain guard {\n"
                   "\t\ttype filter hook input priority 0; policy accept;\n");
    if (o->outbound) {
        rules_put(out, "\t\ttcp dport %u ct status & dnat == 0 reject with tcp reset\n",
                  o->outbound_port);
    }
    if (o->inbound) {
        rules_put(out, "\t\ttcp dport %u %sreject with tcp reset\n", o->inbound_port,
                  redirected ? "ct status & dnat == 0 " : "");
    }
    if (redirected || (o->inbound && o->udp_drop)) {
        rules_put(out, "\t\tiifname \"lo\" accept\n");
        if (o->ipv4_only) {
            rules_put(out, "\t\tmeta nfproto ipv6 accept\n");
        }
    }
    if (redirected) {
        rules_put_hbone(o, out);
        rules_put_ports(out, "tcp", o->exclude_inbound, o->n_exclude_inbound, "accept");
        rules_put(out,
                  "\t\tmeta l4proto tcp ct state invalid,untracked drop\n"
                  "\t\ttcp dport != %u ct direction original reject with tcp reset\n",
                  o->inbound_port);
    }
    if (o->inbound && o->udp_drop) {
        rules_put_ports(out, "udp", o->exclude_inbound, o->n_exclude_inbound, "accept");
        rules_put(out, "\t\t" DATAGRAMS " ct direction original reject\n");
    }
    rules_put(out, "\t}\n");
}

/*
 * What leaves and was not captured. Captured connections have become ones to an address of this
 * machine by now. A socket that was closed with bytes still to be sent belongs to nobody any more:
 * of a connection that stands, its rest passes.
 */
void rules_put_egress(const struct intercept_options *o, const struct intercept_cgroup *cgroup,
                      struct buf *out)
{
    if (!o->outbound || (!o->udp_drop && !o->drop_all)) {
        return;
    }
    rules_put(out, "\tchain egress_refused {\n"
                   "\t\tmeta l4proto tcp reject with tcp reset\n"
                   "\t\treject\n\t}\n"
                   "\tchain egress {\n"
                   "\t\ttype filter hook output priority 0; policy accept;\n"
                   "\t\tfib daddr type local accept\n");
    rules_put_exempt(o, cgroup, out);
    rules_put(out, "\t\tct direction reply accept\n");
    if (o->ipv4_only) {
        rules_put(out, "\t\tmeta nfproto ipv6 accept\n");
    }
    if (o->drop_all) {
        rules_put_ports(out, "tcp", o->exclude_outbound, o->n_exclude_outbound, "accept");
    }
    rules_put_blocks(out, o->exclude_blocks, o->n_exclude_blocks, "accept");
    rules_put_ports(out, "udp", o->udp_ports, o->n_udp_ports, "accept");
    if (!o->drop_all) {
        rules_put(out, "\t\t" DATAGRAMS " goto egress_refused\n\t}\n");
        return;
    }
    if (!o->ipv4_only) {
        /* Without these IPv6 does not work at all. */
        rules_put(out, "\t\ticmpv6 type { nd-router-solicit, nd-neighbor-solicit, "
                       "nd-neighbor-advert, mld-listener-report, mld2-listener-report } accept\n");
    }
    rules_put(out, "\t\tmeta l4proto { icmp, icmpv6 } ct state related accept\n"
                   "\t\tmeta skuid != 4294967295 goto egress_refused\n"
                   "\t\tct state established accept\n"
                   "\t\tgoto egress_refused\n\t}\n");
}
