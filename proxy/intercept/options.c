/* options: the command line of `postern intercept`. Everything that reaches the ruleset passes
 * through here as a number, an address or a checked path, so no text of the caller's does. */
#include <postern/intercept.h>

#include <arpa/inet.h>
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
    OPT_EXCLUDE_INBOUND_PORTS,
    OPT_EXCLUDE_OUTBOUND_PORTS,
    OPT_EXCLUDE_OUTBOUND_CIDRS,
    OPT_NO_INBOUND,
    OPT_NO_OUTBOUND,
    OPT_IPV4_ONLY,
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
    {"exclude-inbound-ports", required_argument, NULL, OPT_EXCLUDE_INBOUND_PORTS},
    {"exclude-outbound-ports", required_argument, NULL, OPT_EXCLUDE_OUTBOUND_PORTS},
    {"exclude-outbound-cidrs", required_argument, NULL, OPT_EXCLUDE_OUTBOUND_CIDRS},
    {"no-inbound", no_argument, NULL, OPT_NO_INBOUND},
    {"no-outbound", no_argument, NULL, OPT_NO_OUTBOUND},
    {"ipv4-only", no_argument, NULL, OPT_IPV4_ONLY},
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
           "  --exclude-inbound-ports LIST   own ports left alone\n"
           "  --no-outbound, --no-inbound    one direction only\n"
           "  --ipv4-only                    leave IPv6 alone\n"
           "\n"
           "  --check    do the rules in the kernel match the other options? 0 yes, 1 no\n"
           "  --remove   take the rules away\n"
           "  --print    write the rules and do nothing\n"
           "\n"
           "Applied at once and as a whole; applied again, it changes nothing.\n";
}

static int parse_port(struct str text, uint16_t *ret)
{
    uint64_t v;
    if (!str_to_u64(text, 65535, &v) || v == 0) {
        return -1;
    }
    *ret = (uint16_t)v;
    return 0;
}

static int option_port(const char *name, const char *arg, uint16_t *ret, struct err *err)
{
    if (parse_port(str_of(arg), ret) != 0) {
        err_set(err, ERR_USAGE, "--%s %s: not a port", name, arg);
        return err_expected(err, "a number from 1 to 65535");
    }
    return 0;
}

/* Cuts the next element of a list with commas; false: none is left. */
static bool next_element(struct str *rest, struct str *ret)
{
    if (rest->p == NULL) {
        return false;
    }
    const char *comma = memchr(rest->p, ',', rest->n);
    if (comma == NULL) {
        *ret = *rest;
        *rest = STR_NONE;
        return true;
    }
    *ret = (struct str){rest->p, (size_t)(comma - rest->p)};
    *rest = (struct str){comma + 1, rest->n - ret->n - 1};
    return true;
}

/* --- port ranges ------------------------------------------------------------------------------ */
static int compare_ports(const void *pa, const void *pb)
{
    const struct intercept_ports *a = pa;
    const struct intercept_ports *b = pb;
    return a->first != b->first ? (a->first < b->first ? -1 : 1) : 0;
}

/* nftables refuses elements that overlap; a person may well name a port twice. */
static size_t merge_ports(struct intercept_ports *list, size_t n)
{
    size_t out = 0;
    qsort(list, n, sizeof(*list), compare_ports);
    for (size_t i = 0; i < n; i++) {
        if (out > 0 && list[i].first <= list[out - 1].last) {
            if (list[i].last > list[out - 1].last) {
                list[out - 1].last = list[i].last;
            }
        } else {
            list[out++] = list[i];
        }
    }
    return out;
}

static int option_ports(const char *name, const char *arg, struct intercept_ports *list, size_t *n,
                        struct err *err)
{
    struct str rest = str_of(arg);
    struct str e;
    while (next_element(&rest, &e)) {
        struct str last = e;
        const char *dash = memchr(e.p, '-', e.n);
        if (dash != NULL) {
            last = (struct str){dash + 1, e.n - (size_t)(dash - e.p) - 1};
            e.n = (size_t)(dash - e.p);
        }
        struct intercept_ports r;
        if (parse_port(e, &r.first) != 0 || parse_port(last, &r.last) != 0 || r.first > r.last) {
            err_set(err, ERR_USAGE, "--%s %s: not a list of ports", name, arg);
            return err_expected(err, "ports and ranges with commas, such as 22,8000-8010");
        }
        if (*n == INTERCEPT_RANGES_MAX) {
            return err_set(err, ERR_USAGE, "--%s: more than %d elements", name,
                           INTERCEPT_RANGES_MAX);
        }
        list[(*n)++] = r;
    }
    *n = merge_ports(list, *n);
    return 0;
}

/* --- address blocks --------------------------------------------------------------------------- */
static int parse_block(struct str text, struct intercept_block *ret)
{
    char z[INET6_ADDRSTRLEN];
    struct intercept_block b = {0};
    const char *slash = memchr(text.p, '/', text.n);
    size_t n = slash != NULL ? (size_t)(slash - text.p) : text.n;
    if (n == 0 || n >= sizeof(z)) {
        return -1;
    }
    memcpy(z, text.p, n);
    z[n] = '\0';
    if (inet_pton(AF_INET, z, b.addr) == 1) {
        b.family = AF_INET;
    } else if (inet_pton(AF_INET6, z, b.addr) == 1) {
        b.family = AF_INET6;
    } else {
        return -1;
    }
    unsigned bits = b.family == AF_INET ? 32 : 128;
    uint64_t prefix = bits;
    if (slash != NULL && !str_to_u64((struct str){slash + 1, text.n - n - 1}, bits, &prefix)) {
        return -1;
    }
    b.prefix_len = (uint8_t)prefix;
    for (unsigned i = b.prefix_len; i < bits; i++) {
        if ((b.addr[i / 8] & (0x80u >> (i % 8))) != 0) {
            return -1; /* 10.0.0.1/8 could be meant in two ways */
        }
    }
    *ret = b;
    return 0;
}

static bool block_holds(const struct intercept_block *outer, const struct intercept_block *inner)
{
    if (outer->family != inner->family || outer->prefix_len > inner->prefix_len) {
        return false;
    }
    size_t whole = outer->prefix_len / 8;
    unsigned rest = outer->prefix_len % 8;
    uint8_t mask = (uint8_t)(0xff00u >> rest);
    return memcmp(outer->addr, inner->addr, whole) == 0 &&
           (rest == 0 || ((outer->addr[whole] ^ inner->addr[whole]) & mask) == 0);
}

static int compare_blocks(const void *pa, const void *pb)
{
    const struct intercept_block *a = pa;
    const struct intercept_block *b = pb;
    if (a->family != b->family) {
        return a->family < b->family ? -1 : 1;
    }
    int r = memcmp(a->addr, b->addr, sizeof(a->addr));
    return r != 0 ? r : (int)a->prefix_len - (int)b->prefix_len;
}

/* Sorted, a block comes right after those that hold it. */
static size_t merge_blocks(struct intercept_block *list, size_t n)
{
    size_t out = 0;
    qsort(list, n, sizeof(*list), compare_blocks);
    for (size_t i = 0; i < n; i++) {
        if (out == 0 || !block_holds(&list[out - 1], &list[i])) {
            list[out++] = list[i];
        }
    }
    return out;
}

static int option_blocks(const char *name, const char *arg, struct intercept_options *o,
                         struct err *err)
{
    struct str rest = str_of(arg);
    struct str e;
    while (next_element(&rest, &e)) {
        if (o->n_exclude_blocks == INTERCEPT_RANGES_MAX) {
            return err_set(err, ERR_USAGE, "--%s: more than %d elements", name,
                           INTERCEPT_RANGES_MAX);
        }
        if (parse_block(e, &o->exclude_blocks[o->n_exclude_blocks]) != 0) {
            err_set(err, ERR_USAGE, "--%s %.*s: not an address block", name, STR_ARG(e));
            return err_expected(err, "blocks with commas, such as 10.0.0.0/8,fd00::/8, with no "
                                     "bit set beyond the prefix");
        }
        o->n_exclude_blocks++;
    }
    o->n_exclude_blocks = merge_blocks(o->exclude_blocks, o->n_exclude_blocks);
    return 0;
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

static int set_action(struct intercept_options *o, enum intercept_action action, struct err *err)
{
    if (o->action != INTERCEPT_APPLY && o->action != action) {
        return err_set(err, ERR_USAGE, "more than one of --check, --remove and --print");
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
    case OPT_EXCLUDE_INBOUND_PORTS:
        return option_ports("exclude-inbound-ports", arg, o->exclude_inbound, &o->n_exclude_inbound,
                            err);
    case OPT_EXCLUDE_OUTBOUND_PORTS:
        return option_ports("exclude-outbound-ports", arg, o->exclude_outbound,
                            &o->n_exclude_outbound, err);
    case OPT_EXCLUDE_OUTBOUND_CIDRS:
        return option_blocks("exclude-outbound-cidrs", arg, o, err);
    case OPT_NO_INBOUND:
        o->inbound = false;
        return 0;
    case OPT_NO_OUTBOUND:
        o->outbound = false;
        return 0;
    case OPT_IPV4_ONLY:
        o->ipv4_only = true;
        return 0;
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
    if (o->outbound && o->inbound && o->outbound_port == o->inbound_port) {
        return err_set(err, ERR_USAGE, "--outbound-port and --inbound-port are both %u",
                       o->inbound_port);
    }
    return 0;
}

int intercept_options_parse(int argc, char **argv, struct intercept_options *ret, struct err *err)
{
    struct intercept_options o = {
        .outbound = true, .inbound = true, .outbound_port = 15001, .inbound_port = 15006};
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
