/* options: the command line of `postern intercept`. Everything that reaches the ruleset passes
 * through here as a number, an address or a checked path, so no text of the caller's does. */
#include "options_priv.h"

#include <getopt.h>
#include <postern/str.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum option_id {
    OPT_OUTBOUND_PORT = 256,
    OPT_INBOUND_PORT,
    OPT_PROXY_UID,
    OPT_PROXY_CGROUP,
    OPT_HBONE_PORT,
    OPT_EXCLUDE_INBOUND_PORTS,
    OPT_EXCLUDE_OUTBOUND_PORTS,
    OPT_EXCLUDE_OUTBOUND_CIDRS,
    OPT_EXCLUDE_UIDS,
    OPT_INCLUDE_OUTBOUND_PORTS,
    OPT_INCLUDE_OUTBOUND_CIDRS,
    OPT_INBOUND_MODE,
    OPT_TPROXY_MARK,
    OPT_UDP,
    OPT_UDP_PORTS,
    OPT_DROP_ALL,
    OPT_NO_INBOUND,
    OPT_NO_OUTBOUND,
    OPT_IPV4_ONLY,
    OPT_ONCE,
    OPT_WATCH,
    OPT_WATCH_INTERVAL,
    OPT_CHECK,
    OPT_REMOVE,
    OPT_PRINT,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"outbound-port", required_argument, NULL, OPT_OUTBOUND_PORT},
    {"inbound-port", required_argument, NULL, OPT_INBOUND_PORT},
    {"proxy-uid", required_argument, NULL, OPT_PROXY_UID},
    {"proxy-cgroup", required_argument, NULL, OPT_PROXY_CGROUP},
    {"hbone-port", required_argument, NULL, OPT_HBONE_PORT},
    {"exclude-inbound-ports", required_argument, NULL, OPT_EXCLUDE_INBOUND_PORTS},
    {"exclude-outbound-ports", required_argument, NULL, OPT_EXCLUDE_OUTBOUND_PORTS},
    {"exclude-outbound-cidrs", required_argument, NULL, OPT_EXCLUDE_OUTBOUND_CIDRS},
    {"exclude-uids", required_argument, NULL, OPT_EXCLUDE_UIDS},
    {"include-outbound-ports", required_argument, NULL, OPT_INCLUDE_OUTBOUND_PORTS},
    {"include-outbound-cidrs", required_argument, NULL, OPT_INCLUDE_OUTBOUND_CIDRS},
    {"inbound-mode", required_argument, NULL, OPT_INBOUND_MODE},
    {"tproxy-mark", required_argument, NULL, OPT_TPROXY_MARK},
    {"udp", required_argument, NULL, OPT_UDP},
    {"udp-ports", required_argument, NULL, OPT_UDP_PORTS},
    {"drop-all", no_argument, NULL, OPT_DROP_ALL},
    {"no-inbound", no_argument, NULL, OPT_NO_INBOUND},
    {"no-outbound", no_argument, NULL, OPT_NO_OUTBOUND},
    {"ipv4-only", no_argument, NULL, OPT_IPV4_ONLY},
    {"once", no_argument, NULL, OPT_ONCE},
    {"watch", no_argument, NULL, OPT_WATCH},
    {"watch-interval", required_argument, NULL, OPT_WATCH_INTERVAL},
    {"check", no_argument, NULL, OPT_CHECK},
    {"remove", no_argument, NULL, OPT_REMOVE},
    {"print", no_argument, NULL, OPT_PRINT},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

const char *intercept_usage(void)
{
    return "usage: postern intercept --proxy-uid N | --proxy-cgroup PATH [OPTIONS]\n"
           "\n"
           "Redirects the TCP of this network namespace to a sidecar. What came in before is cut:\n"
           "on a host, exclude what has to stay, such as --exclude-inbound-ports 22.\n"
           "\n"
           "  --proxy-uid N                  connections of this user are the proxy's own\n"
           "  --proxy-cgroup PATH            connections of this cgroup (v2) are the proxy's own\n"
           "  --outbound-port N              the outbound listener (15001)\n"
           "  --inbound-port N               the inbound listener (15006)\n"
           "  --exclude-outbound-ports LIST  destination ports left alone: 22,8000-8010\n"
           "  --exclude-outbound-cidrs LIST  destinations left alone: 10.0.0.0/8,fd00::/8\n"
           "  --hbone-port N                 left alone for the HBONE listener (15008); or none\n"
           "  --exclude-inbound-ports LIST   own ports left alone\n"
           "  --exclude-uids LIST            users whose connections are left alone: "
           "998,2000-2099\n"
           "  --include-outbound-ports LIST  with either of these two nothing else is redirected\n"
           "  --include-outbound-cidrs LIST  of what leaves\n"
           "  --inbound-mode redirect|tproxy tproxy: the workload sees its clients' addresses\n"
           "                                 (the listener is `transparent: true`)\n"
           "  --tproxy-mark N                of packets that are routed back to this machine "
           "(0x15006)\n"
           "  --udp pass|drop                what is not TCP leaves and arrives as it is, or not\n"
           "  --udp-ports LIST|none          UDP that leaves all the same (53)\n"
           "  --drop-all                     what leaves and is neither captured nor excluded is\n"
           "                                 refused, whatever it is\n"
           "  --no-outbound, --no-inbound    one direction only\n"
           "  --ipv4-only                    leave IPv6 alone\n"
           "\n"
           "  --once     apply and end (so without any of these)\n"
           "  --watch    apply, stay, and apply again whenever the rules in the kernel are others\n"
           "  --watch-interval SECONDS  how often to look without being called (30)\n"
           "  --check    do the rules in the kernel match the other options? 0 yes, 1 no\n"
           "  --remove   take the rules away\n"
           "  --print    write the rules and do nothing\n"
           "\n"
           "Applied at once and as a whole; applied again, it changes nothing.\n";
}

/* --- the whole -------------------------------------------------------------------------------- */
static int option_uid(const char *arg, struct intercept_options *o, struct err *err)
{
    uint64_t v;
    if (!str_to_u64(str_of(arg), UINT32_MAX - 1, &v)) {
        err_set(err, ERR_USAGE, "--proxy-uid %s: not a numeric uid", arg);
        return err_expected(err, "a number, as 'id -u NAME' prints it");
    }
    o->has_uid = true;
    o->proxy_uid = (uid_t)v;
    return 0;
}

static int option_cgroup(const char *arg, struct intercept_options *o, struct err *err)
{
    struct str path = str_of(arg);
    bool ok = path.n > 0 && path.n < sizeof(o->proxy_cgroup) && strstr(arg, "..") == NULL;
    for (size_t i = 0; ok && i < path.n; i++) {
        unsigned char ch = (unsigned char)path.p[i];
        ok = ch > ' ' && ch < 0x7f && ch != '"' && ch != '\\' && ch != '*';
    }
    if (!ok) {
        err_set(err, ERR_USAGE, "--proxy-cgroup %.80s: not a path that a rule can hold", arg);
        return err_expected(err, "a cgroup's path such as /sys/fs/cgroup/system.slice/NAME");
    }
    memcpy(o->proxy_cgroup, path.p, path.n + 1);
    return 0;
}

static int option_mode(const char *arg, struct intercept_options *o, struct err *err)
{
    if (strcmp(arg, "redirect") != 0 && strcmp(arg, "tproxy") != 0) {
        err_set(err, ERR_USAGE, "--inbound-mode %s: no such mode", arg);
        return err_expected(err, "redirect or tproxy");
    }
    o->mode = arg[0] == 't' ? INTERCEPT_TPROXY : INTERCEPT_REDIRECT;
    return 0;
}

static int option_mark(const char *arg, struct intercept_options *o, struct err *err)
{
    uint64_t v;
    if (!str_to_u64(str_of(arg), UINT32_MAX, &v) || v == 0) {
        err_set(err, ERR_USAGE, "--tproxy-mark %s: not a mark", arg);
        return err_expected(err, "a number from 1 to 4294967295");
    }
    o->tproxy_mark = (uint32_t)v;
    return 0;
}

static int option_udp(const char *arg, struct intercept_options *o, struct err *err)
{
    if (strcmp(arg, "pass") != 0 && strcmp(arg, "drop") != 0) {
        err_set(err, ERR_USAGE, "--udp %s: cannot be done with it", arg);
        return err_expected(err, "pass or drop");
    }
    o->udp_drop = arg[0] == 'd';
    return 0;
}

static int option_interval(const char *arg, struct intercept_options *o, struct err *err)
{
    uint64_t v;
    if (!str_to_u64(str_of(arg), 86400, &v) || v == 0) {
        err_set(err, ERR_USAGE, "--watch-interval %s: not a number of seconds", arg);
        return err_expected(err, "a number from 1 to 86400");
    }
    o->watch_s = (uint32_t)v;
    return 0;
}

static int set_action(struct intercept_options *o, enum intercept_action action, struct err *err)
{
    if (o->action != INTERCEPT_APPLY && o->action != action) {
        return err_set(err, ERR_USAGE, "more than one of --watch, --check, --remove and --print");
    }
    o->action = action;
    return 0;
}

static int take_option(int id, const char *arg, struct intercept_options *o, struct err *err)
{
    switch (id) {
    case OPT_OUTBOUND_PORT:
        return option_port("outbound-port", arg, &o->outbound_port, err);
    case OPT_INBOUND_PORT:
        return option_port("inbound-port", arg, &o->inbound_port, err);
    case OPT_PROXY_UID:
        return option_uid(arg, o, err);
    case OPT_PROXY_CGROUP:
        return option_cgroup(arg, o, err);
    case OPT_HBONE_PORT:
        o->hbone_port = 0;
        return strcmp(arg, "none") == 0 ? 0 : option_port("hbone-port", arg, &o->hbone_port, err);
    case OPT_EXCLUDE_INBOUND_PORTS:
        return option_ports("exclude-inbound-ports", arg, o->exclude_inbound, &o->n_exclude_inbound,
                            err);
    case OPT_EXCLUDE_OUTBOUND_PORTS:
        return option_ports("exclude-outbound-ports", arg, o->exclude_outbound,
                            &o->n_exclude_outbound, err);
    case OPT_EXCLUDE_OUTBOUND_CIDRS:
        return option_blocks("exclude-outbound-cidrs", arg, o->exclude_blocks, &o->n_exclude_blocks,
                             err);
    case OPT_EXCLUDE_UIDS:
        return option_uids(arg, o, err);
    case OPT_INCLUDE_OUTBOUND_PORTS:
        return option_ports("include-outbound-ports", arg, o->include_outbound,
                            &o->n_include_outbound, err);
    case OPT_INCLUDE_OUTBOUND_CIDRS:
        return option_blocks("include-outbound-cidrs", arg, o->include_blocks, &o->n_include_blocks,
                             err);
    case OPT_INBOUND_MODE:
        return option_mode(arg, o, err);
    case OPT_TPROXY_MARK:
        return option_mark(arg, o, err);
    case OPT_UDP:
        return option_udp(arg, o, err);
    case OPT_UDP_PORTS:
        o->n_udp_ports = o->has_udp_ports ? o->n_udp_ports : 0;
        o->has_udp_ports = true;
        return strcmp(arg, "none") == 0
                   ? 0
                   : option_ports("udp-ports", arg, o->udp_ports, &o->n_udp_ports, err);
    case OPT_DROP_ALL:
        o->drop_all = true;
        return 0;
    case OPT_NO_INBOUND:
        o->inbound = false;
        return 0;
    case OPT_NO_OUTBOUND:
        o->outbound = false;
        return 0;
    case OPT_IPV4_ONLY:
        o->ipv4_only = true;
        return 0;
    case OPT_ONCE:
        return 0;
    case OPT_WATCH:
        return set_action(o, INTERCEPT_WATCH, err);
    case OPT_WATCH_INTERVAL:
        return option_interval(arg, o, err);
    case OPT_CHECK:
        return set_action(o, INTERCEPT_CHECK, err);
    case OPT_REMOVE:
        return set_action(o, INTERCEPT_REMOVE, err);
    case OPT_PRINT:
        return set_action(o, INTERCEPT_PRINT, err);
    default:
        o->help = true;
        return 0;
    }
}

static int check_together(const struct intercept_options *o, struct err *err)
{
    if (o->help || o->action == INTERCEPT_REMOVE) {
        return 0;
    }
    if (!o->outbound && !o->inbound) {
        err_set(err, ERR_USAGE, "--no-outbound and --no-inbound leave nothing to redirect");
        return err_advise(err, "--remove takes the rules away");
    }
    if (o->has_uid && o->proxy_cgroup[0] != '\0') {
        return err_set(err, ERR_USAGE, "--proxy-uid and --proxy-cgroup: one of them, not both");
    }
    if (o->outbound && !o->has_uid && o->proxy_cgroup[0] == '\0') {
        err_set(err, ERR_USAGE,
                "neither --proxy-uid nor --proxy-cgroup: the proxy's own connections would come "
                "back to it");
        return err_advise(err, "run the proxy under a uid of its own and name that");
    }
    if (o->mode == INTERCEPT_TPROXY && !o->inbound) {
        return err_set(err, ERR_USAGE, "--inbound-mode tproxy with --no-inbound");
    }
    if (o->drop_all && !o->outbound) {
        err_set(err, ERR_USAGE, "--drop-all with --no-outbound: nothing at all would leave");
        return err_advise(err, "that is not for a sidecar's rules to say");
    }
    if (o->outbound && o->inbound && o->outbound_port == o->inbound_port) {
        return err_set(err, ERR_USAGE, "--outbound-port and --inbound-port are both %u",
                       o->inbound_port);
    }
    if (o->inbound &&
        (o->hbone_port == o->inbound_port || (o->outbound && o->hbone_port == o->outbound_port))) {
        err_set(err, ERR_USAGE, "--hbone-port is %u, as another listener's", o->hbone_port);
        return err_advise(err, "--hbone-port none where no listener takes HBONE");
    }
    return 0;
}

int intercept_options_parse(int argc, char **argv, struct intercept_options *ret, struct err *err)
{
    struct intercept_options o = {.outbound = true,
                                  .inbound = true,
                                  .outbound_port = 15001,
                                  .inbound_port = 15006,
                                  .hbone_port = 15008,
                                  .tproxy_mark = 86022,
                                  .watch_s = 30,
                                  .udp_ports = {{53, 53}},
                                  .n_udp_ports = 1};
    optind = 0; /* from the start, also when asked again */
    opterr = 0;
    for (;;) {
        int at = optind == 0 ? 1 : optind;
        int id =
            getopt_long(argc, argv, "+:h", long_options, NULL); /* NOLINT(concurrency-mt-unsafe) */
        if (id == -1) {
            break;
        }
        if (id == '?' || id == ':') {
            err_set(err, ERR_USAGE,
                    id == ':' ? "option %s needs a value"
                              : "option %s is not known, or not to be "
                                "used so",
                    argv[at]);
            return err_advise(err, "see postern intercept --help");
        }
        if (take_option(id, optarg, &o, err) != 0) {
            return -1;
        }
    }
    if (optind < argc) {
        err_set(err, ERR_USAGE, "'%s' is no option", argv[optind]);
        return err_advise(err, "see postern intercept --help");
    }
    if (check_together(&o, err) != 0) {
        return -1;
    }
    *ret = o;
    return 0;
}
