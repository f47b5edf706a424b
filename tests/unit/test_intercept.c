/* intercept: command lines, the bad ones first, and the ruleset that the good ones ask for. What
 * the rules do to packets is shown by tests/integration/test_intercept.py. */
#include <postern/intercept.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

enum { ARGS_MAX = 12 };

static int parse(const char *const *args, struct intercept_options *ret, struct err *err)
{
    char text[ARGS_MAX + 2][200];
    char *argv[ARGS_MAX + 2];
    int argc = 0;
    snprintf(text[0], sizeof(text[0]), "intercept");
    argv[argc++] = text[0];
    for (size_t i = 0; i < ARGS_MAX && args[i] != NULL; i++) {
        snprintf(text[argc], sizeof(text[argc]), "%s", args[i]);
        argv[argc] = text[argc];
        argc++;
    }
    argv[argc] = NULL;
    return intercept_options_parse(argc, argv, ret, err);
}

static const struct {
    const char *args[ARGS_MAX];
    const char *what;
} bad[] = {
    {{NULL}, "neither --proxy-uid nor --proxy-cgroup"},
    {{"--check"}, "neither --proxy-uid nor --proxy-cgroup"},
    {{"--proxy-uid"}, "option --proxy-uid needs a value"},
    {{"--proxy-uid", "-1"}, "not a numeric uid"},
    {{"--proxy-uid", "4294967295"}, "not a numeric uid"},
    {{"--proxy-uid", "root"}, "not a numeric uid"},
    {{"--proxy-uid", "1", "--frobnicate"}, "option --frobnicate is not known"},
    {{"--proxy-uid", "1", "--check=yes"}, "option --check=yes is not known, or not to be used so"},
    {{"--proxy-uid", "1", "more"}, "'more' is no option"},
    {{"--proxy-uid", "1", "--", "--check"}, "'--check' is no option"},
    {{"--proxy-uid", "1", "--proxy-cgroup", "/a"}, "one of them, not both"},
    {{"--proxy-cgroup", ""}, "not a path that a rule can hold"},
    {{"--proxy-cgroup", "/a/../b"}, "not a path that a rule can hold"},
    {{"--proxy-cgroup", "/a\" accept"}, "not a path that a rule can hold"},
    {{"--proxy-cgroup", "/a\nflush"}, "not a path that a rule can hold"},
    {{"--proxy-uid", "1", "--outbound-port", "0"}, "not a port"},
    {{"--proxy-uid", "1", "--inbound-port", "65536"}, "not a port"},
    {{"--proxy-uid", "1", "--inbound-port", "15001"}, "are both 15001"},
    {{"--proxy-uid", "1", "--hbone-port", "0"}, "not a port"},
    {{"--proxy-uid", "1", "--hbone-port", "None"}, "not a port"},
    {{"--proxy-uid", "1", "--inbound-port", "15008"}, "--hbone-port is 15008"},
    {{"--proxy-uid", "1", "--hbone-port", "15001"}, "--hbone-port is 15001"},
    {{"--proxy-uid", "1", "--exclude-inbound-ports", ""}, "not a list of ports"},
    {{"--proxy-uid", "1", "--exclude-inbound-ports", "1,"}, "not a list of ports"},
    {{"--proxy-uid", "1", "--exclude-outbound-ports", "9-8"}, "not a list of ports"},
    {{"--proxy-uid", "1", "--exclude-outbound-ports", "1 }"}, "not a list of ports"},
    {{"--proxy-uid", "1", "--exclude-outbound-cidrs", "10.0.0.1/8"}, "not an address block"},
    {{"--proxy-uid", "1", "--exclude-outbound-cidrs", "10.0.0.0/33"}, "not an address block"},
    {{"--proxy-uid", "1", "--exclude-outbound-cidrs", "host"}, "not an address block"},
    {{"--proxy-uid", "1", "--no-inbound", "--no-outbound"}, "nothing to redirect"},
    {{"--proxy-uid", "1", "--check", "--remove"}, "more than one of"},
    {{"--proxy-uid", "1", "--check", "--watch"}, "more than one of"},
    {{"--proxy-uid", "1", "--watch-interval", "0"}, "not a number of seconds"},
    {{"--proxy-uid", "1", "--exclude-uids", "root"}, "not a list of numeric uids"},
    {{"--proxy-uid", "1", "--exclude-uids", "9-8"}, "not a list of numeric uids"},
    {{"--proxy-uid", "1", "--exclude-uids", "4294967295"}, "not a list of numeric uids"},
    {{"--proxy-uid", "1", "--include-outbound-ports", "0"}, "not a list of ports"},
    {{"--proxy-uid", "1", "--include-outbound-cidrs", "::1/64"}, "not an address block"},
    {{"--proxy-uid", "1", "--inbound-mode", "Tproxy"}, "no such mode"},
    {{"--proxy-uid", "1", "--inbound-mode", "tproxy", "--no-inbound"}, "tproxy with --no-inbound"},
    {{"--proxy-uid", "1", "--tproxy-mark", "0"}, "not a mark"},
    {{"--proxy-uid", "1", "--tproxy-mark", "4294967296"}, "not a mark"},
    {{"--proxy-uid", "1", "--udp", "deny"}, "cannot be done with it"},
    {{"--proxy-uid", "1", "--udp-ports", "dns"}, "not a list of ports"},
    {{"--no-outbound", "--drop-all"}, "nothing at all would leave"},
};

static void test_bad_lines(void **state)
{
    (void)state;
    static struct intercept_options o;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err = ERR_INIT;
        assert_int_equal(parse(bad[i].args, &o, &err), -1);
        assert_int_equal(err.code, ERR_USAGE);
        if (strstr(err.what, bad[i].what) == NULL) {
            print_message("%zu: said '%s', expected '%s'\n", i, err.what, bad[i].what);
            fail();
        }
    }
}

#define CANARY_4(then) "\t\tip daddr 127.15.0.9 tcp dport 15009 " then "\n"
#define CANARY_6(then) "\t\tip6 daddr ::1 tcp dport 15009 " then "\n"
#define REST "\tchain outbound_rest {\n"
#define OUTBOUND_OF(canaries)                                                                      \
    "\tchain outbound {\n"                                                                         \
    "\t\ttype nat hook output priority -100; policy accept;\n" canaries                            \
    "\t\tfib daddr type local accept\n"
#define OUTBOUND OUTBOUND_OF(CANARY_4("goto outbound_rest") CANARY_6("goto outbound_rest"))
#define GO "\t\tgoto outbound_rest\n\t}\n"
#define INBOUND                                                                                    \
    "\tchain inbound {\n"                                                                          \
    "\t\ttype nat hook prerouting priority -100; policy accept;\n"                                 \
    "\t\tiifname \"lo\" accept\n"                                                                  \
    "\t\tfib daddr type != local accept\n"
#define GUARD                                                                                      \
    "\tchain guard {\n"                                                                            \
    "\t\ttype filter hook input priority 0; policy accept;\n"
#define GUARD_REST(port)                                                                           \
    "\t\tmeta l4proto tcp ct state invalid,untracked drop\n"                                       \
    "\t\ttcp dport != " port " ct direction original reject with tcp reset\n"
#define HBONE "\t\ttcp dport 15008 accept\n"
#define GUARD_LO "\t\tiifname \"lo\" accept\n"
#define GUARD_PORT(port) "\t\ttcp dport " port " ct status & dnat == 0 reject with tcp reset\n"
#define DATAGRAMS "\t\tmeta l4proto { udp, udplite, sctp, dccp } "
#define EGRESS                                                                                     \
    "\tchain egress_refused {\n"                                                                   \
    "\t\tmeta l4proto tcp reject with tcp reset\n"                                                 \
    "\t\treject\n\t}\n"                                                                            \
    "\tchain egress {\n"                                                                           \
    "\t\ttype filter hook output priority 0; policy accept;\n"                                     \
    "\t\tfib daddr type local accept\n"

static const struct {
    const char *args[ARGS_MAX];
    const char *table; /* between the braces */
} good[] = {
    {{"--proxy-uid", "1337"},
     REST "\t\tmeta l4proto tcp redirect to :15001\n\t}\n" OUTBOUND
          "\t\tmeta skuid 1337 accept\n" GO INBOUND "\t\ttcp dport 15001 accept\n"
          "\t\ttcp dport 15006 accept\n" HBONE
          "\t\tmeta l4proto tcp redirect to :15006\n\t}\n" GUARD GUARD_PORT("15001")
              GUARD_PORT("15006") GUARD_LO HBONE GUARD_REST("15006") "\t}\n"},
    {{"--proxy-uid=0", "--no-inbound", "--ipv4-only", "--outbound-port=1"},
     REST "\t\tmeta nfproto ipv6 accept\n"
          "\t\tmeta l4proto tcp redirect to :1\n\t}\n" OUTBOUND_OF(CANARY_4(
              "goto outbound_rest")) "\t\tmeta skuid 0 accept\n" GO GUARD GUARD_PORT("1") "\t}\n"},
    {{"--no-outbound", "--inbound-port", "2", "--exclude-inbound-ports", "22"},
     INBOUND "\t\ttcp dport 2 accept\n" HBONE "\t\ttcp dport { 22 } accept\n"
             "\t\tmeta l4proto tcp redirect to :2\n\t}\n" GUARD GUARD_PORT("2") GUARD_LO HBONE
     "\t\ttcp dport { 22 } accept\n" GUARD_REST("2") "\t}\n"},
    /* HBONE's port is like any other where nobody takes HBONE, or is another one. */
    {{"--no-outbound", "--hbone-port", "none"},
     INBOUND "\t\ttcp dport 15006 accept\n"
             "\t\tmeta l4proto tcp redirect to :15006\n\t}\n" GUARD GUARD_PORT("15006")
                 GUARD_LO GUARD_REST("15006") "\t}\n"},
    {{"--no-outbound", "--hbone-port", "99"},
     INBOUND "\t\ttcp dport 15006 accept\n"
             "\t\ttcp dport 99 accept\n"
             "\t\tmeta l4proto tcp redirect to :15006\n\t}\n" GUARD GUARD_PORT("15006") GUARD_LO
     "\t\ttcp dport 99 accept\n" GUARD_REST("15006") "\t}\n"},
    /* Overlaps are joined, families kept apart. */
    {{"--proxy-uid", "1", "--no-inbound", "--exclude-outbound-ports", "90,80-85,22,84-89,22",
      "--exclude-outbound-cidrs", "fd00::/8,10.1.0.0/16,10.0.0.0/8,10.0.0.0/8",
      "--exclude-outbound-cidrs", "192.0.2.7", "--exclude-uids", "9,5-7,6-8"},
     REST "\t\ttcp dport { 22, 80-89, 90 } accept\n"
          "\t\tip daddr { 10.0.0.0/8, 192.0.2.7/32 } accept\n"
          "\t\tip6 daddr { fd00::/8 } accept\n"
          "\t\tmeta l4proto tcp redirect to :15001\n\t}\n" OUTBOUND "\t\tmeta skuid 1 accept\n"
          "\t\tmeta skuid { 5-8, 9 } accept\n" GO GUARD GUARD_PORT("15001") "\t}\n"},
    /* Exclusions that would hold the canary are not meant for it. */
    {{"--proxy-uid", "1", "--no-inbound", "--exclude-outbound-ports", "15000-15010"},
     REST "\t\ttcp dport { 15000-15010 } accept\n"
          "\t\tmeta l4proto tcp redirect to :15001\n\t}\n" OUTBOUND_OF(
              CANARY_4("redirect to :15001")
                  CANARY_6("redirect to :15001")) "\t\tmeta skuid 1 accept\n" GO GUARD
              GUARD_PORT("15001") "\t}\n"},
    {{"--proxy-uid", "1", "--no-inbound", "--ipv4-only", "--include-outbound-ports", "80",
      "--include-outbound-cidrs", "10.0.0.0/8,fd00::/8"},
     REST
     "\t\tmeta nfproto ipv6 accept\n"
     "\t\tip daddr 127.15.0.9 meta l4proto tcp redirect to :15001\n"
     "\t\ttcp dport { 80 } redirect to :15001\n"
     "\t\tip daddr { 10.0.0.0/8 } meta l4proto tcp redirect to :15001\n"
     "\t\tip6 daddr { fd00::/8 } meta l4proto tcp redirect to :15001\n\t}\n" OUTBOUND_OF(CANARY_4(
         "goto outbound_rest")) "\t\tmeta skuid 1 accept\n" GO GUARD GUARD_PORT("15001") "\t}\n"},
    {{"--no-outbound", "--inbound-mode", "tproxy", "--exclude-inbound-ports", "22", "--tproxy-mark",
      "255"},
     "\tchain inbound_rest {\n"
     "\t\tct direction reply accept\n"
     "\t\ttcp dport 15006 accept\n" HBONE "\t\ttcp dport { 22 } accept\n"
     "\t\tmeta l4proto tcp tproxy to :15006 accept\n"
     "\t\tct state invalid,untracked drop\n"
     "\t\treject with tcp reset\n\t}\n"
     "\tchain inbound {\n"
     "\t\ttype filter hook prerouting priority -150; policy accept;\n"
     "\t\tmeta l4proto != tcp accept\n"
     "\t\tiifname \"lo\" ip daddr 127.0.0.1 tcp dport 15010 goto inbound_rest\n"
     "\t\tiifname \"lo\" ip6 daddr ::1 tcp dport 15010 goto inbound_rest\n"
     "\t\tiifname \"lo\" accept\n"
     "\t\tfib daddr type != local accept\n"
     "\t\tgoto inbound_rest\n\t}\n"
     "\tchain transparent {\n"
     "\t\ttype route hook output priority -150; policy accept;\n"
     "\t\tct mark 0x000000ff ct direction reply meta mark set 0x000000ff accept\n"
     "\t\tmeta l4proto tcp fib saddr type != local fib daddr type local ct state new ct mark set "
     "0x000000ff\n"
     "\t\tfib saddr type != local tcp flags & (syn | ack) == syn ct mark != 0x000000ff drop\n"
     "\t}\n" GUARD "\t\ttcp dport 15006 reject with tcp reset\n\t}\n"},
    {{"--proxy-uid", "1", "--ipv4-only", "--udp", "drop", "--exclude-inbound-ports", "22",
      "--exclude-outbound-cidrs", "10.0.0.0/8"},
     REST
     "\t\tmeta nfproto ipv6 accept\n"
     "\t\tip daddr { 10.0.0.0/8 } accept\n"
     "\t\tmeta l4proto tcp redirect to :15001\n\t}\n" OUTBOUND_OF(CANARY_4(
         "goto outbound_rest")) "\t\tmeta skuid 1 accept\n" GO INBOUND
                                "\t\tmeta nfproto ipv6 accept\n"
                                "\t\ttcp dport 15001 accept\n"
                                "\t\ttcp dport 15006 accept\n" HBONE "\t\ttcp dport { 22 } accept\n"
                                "\t\tmeta l4proto tcp redirect to :15006\n\t}\n" GUARD GUARD_PORT(
                                    "15001") GUARD_PORT("15006") GUARD_LO
     "\t\tmeta nfproto ipv6 accept\n" HBONE "\t\ttcp dport { 22 } accept\n" GUARD_REST(
         "15006") "\t\tudp dport { 22 } accept\n" DATAGRAMS
                  "ct direction original reject\n\t}\n" EGRESS "\t\tmeta skuid 1 accept\n"
                  "\t\tct direction reply accept\n"
                  "\t\tmeta nfproto ipv6 accept\n"
                  "\t\tip daddr { 10.0.0.0/8 } accept\n"
                  "\t\tudp dport { 53 } accept\n" DATAGRAMS "goto egress_refused\n\t}\n"},
    {{"--proxy-uid", "1", "--no-inbound", "--drop-all", "--udp-ports", "none",
      "--exclude-outbound-ports", "25"},
     REST
     "\t\ttcp dport { 25 } accept\n"
     "\t\tmeta l4proto tcp redirect to :15001\n\t}\n" OUTBOUND
     "\t\tmeta skuid 1 accept\n" GO GUARD GUARD_PORT(
         "15001") "\t}\n" EGRESS "\t\tmeta skuid 1 accept\n"
                  "\t\tct direction reply accept\n"
                  "\t\ttcp dport { 25 } accept\n"
                  "\t\ticmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, "
                  "mld-listener-report, mld2-listener-report } accept\n"
                  "\t\tmeta l4proto { icmp, icmpv6 } ct state related accept\n"
                  "\t\tmeta skuid != 4294967295 goto egress_refused\n"
                  "\t\tct state established accept\n"
                  "\t\tgoto egress_refused\n\t}\n"},
};

static void test_rules(void **state)
{
    (void)state;
    static struct intercept_options o;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct err err = ERR_INIT;
        struct buf out = BUF_INIT(INTERCEPT_TEXT_MAX);
        char want[8192];
        assert_int_equal(parse(good[i].args, &o, &err), 0);
        intercept_batch(&o, NULL, &out);
        snprintf(want, sizeof(want),
                 "add table inet postern\ndelete table inet postern\ntable inet postern {\n%s}\n",
                 good[i].table);
        if (!str_eq(buf_str(&out), str_of(want))) {
            print_message("%zu:\n%.*s\n", i, STR_ARG(buf_str(&out)));
            fail();
        }
        buf_reset(&out);
    }
}

static void test_cgroup_and_shadow(void **state)
{
    (void)state;
    static struct intercept_options o;
    static const char *const args[ARGS_MAX] = {"--proxy-cgroup", "/a/b", "--no-inbound"};
    const struct intercept_cgroup cgroup = {.path = "unified/a/b", .level = 2};
    struct err err = ERR_INIT;
    struct buf out = BUF_INIT(INTERCEPT_TEXT_MAX);
    assert_int_equal(parse(args, &o, &err), 0);
    assert_string_equal(o.proxy_cgroup, "/a/b");
    intercept_table(&o, &cgroup, "t", true, &out);
    assert_true(buf_append(&out, "", 1));
    const char *text = (const char *)buf_head(&out);
    assert_ptr_equal(strstr(text, "table inet t {\n\tflags dormant;\n\tflags owner;\n"), text);
    assert_non_null(strstr(text, "\t\tsocket cgroupv2 level 2 \"unified/a/b\" accept\n"));
    assert_null(strstr(text, "skuid"));
    buf_reset(&out);
}

/* The largest command line still fits. */
static void test_most(void **state)
{
    (void)state;
    static struct intercept_options o;
    struct buf out = BUF_INIT(INTERCEPT_TEXT_MAX);
    o = (struct intercept_options){.outbound = true,
                                   .inbound = true,
                                   .n_exclude_inbound = INTERCEPT_RANGES_MAX,
                                   .n_exclude_outbound = INTERCEPT_RANGES_MAX,
                                   .n_exclude_blocks = INTERCEPT_RANGES_MAX,
                                   .n_include_outbound = INTERCEPT_RANGES_MAX,
                                   .n_include_blocks = INTERCEPT_RANGES_MAX,
                                   .n_exclude_uids = INTERCEPT_UIDS_MAX,
                                   .n_udp_ports = INTERCEPT_RANGES_MAX,
                                   .udp_drop = true,
                                   .drop_all = true};
    for (size_t i = 0; i < INTERCEPT_RANGES_MAX; i++) {
        o.exclude_inbound[i] = o.exclude_outbound[i] = (struct intercept_range){60000, 65535};
        o.exclude_blocks[i] = (struct intercept_block){.family = AF_INET6, .prefix_len = 128};
        memset(o.exclude_blocks[i].addr, 0xab, 16);
        o.include_outbound[i] = o.udp_ports[i] = o.exclude_inbound[i];
        o.include_blocks[i] = o.exclude_blocks[i];
    }
    for (size_t i = 0; i < INTERCEPT_UIDS_MAX; i++) {
        o.exclude_uids[i] = (struct intercept_range){4000000000, 4000000001};
    }
    intercept_batch(&o, NULL, &out);
    assert_true(buf_len(&out) > 100000);
    buf_reset(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_cgroup_and_shadow),
        cmocka_unit_test(test_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
