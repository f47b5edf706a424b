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
    {{"--proxy-uid", "1", "--exclude-inbound-ports", ""}, "not a list of ports"},
    {{"--proxy-uid", "1", "--exclude-inbound-ports", "1,"}, "not a list of ports"},
    {{"--proxy-uid", "1", "--exclude-outbound-ports", "9-8"}, "not a list of ports"},
    {{"--proxy-uid", "1", "--exclude-outbound-ports", "1 }"}, "not a list of ports"},
    {{"--proxy-uid", "1", "--exclude-outbound-cidrs", "10.0.0.1/8"}, "not an address block"},
    {{"--proxy-uid", "1", "--exclude-outbound-cidrs", "10.0.0.0/33"}, "not an address block"},
    {{"--proxy-uid", "1", "--exclude-outbound-cidrs", "host"}, "not an address block"},
    {{"--proxy-uid", "1", "--no-inbound", "--no-outbound"}, "nothing to redirect"},
    {{"--proxy-uid", "1", "--check", "--remove"}, "more than one of"},
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

#define OUTBOUND                                                                                   \
    "\tchain outbound {\n"                                                                         \
    "\t\ttype nat hook output priority -100; policy accept;\n"                                     \
    "\t\tfib daddr type local accept\n"
#define INBOUND                                                                                    \
    "\tchain inbound {\n"                                                                          \
    "\t\ttype nat hook prerouting priority -100; policy accept;\n"                                 \
    "\t\tiifname \"lo\" accept\n"                                                                  \
    "\t\tfib daddr type != local accept\n"
#define GUARD                                                                                      \
    "\tchain guard {\n"                                                                            \
    "\t\ttype filter hook input priority 0; policy accept;\n"
#define GUARD_REST(port) "\t\ttcp dport != " port " ct direction original reject with tcp reset\n"
#define GUARD_LO "\t\tiifname \"lo\" accept\n"
#define GUARD_PORT(port) "\t\ttcp dport " port " ct status & dnat == 0 reject with tcp reset\n"

static const struct {
    const char *args[ARGS_MAX];
    const char *table; /* between the braces */
} good[] = {
    {{"--proxy-uid", "1337"},
     OUTBOUND
     "\t\tmeta skuid 1337 accept\n"
     "\t\tmeta l4proto tcp redirect to :15001\n\t}\n" INBOUND "\t\ttcp dport 15001 accept\n"
     "\t\ttcp dport 15006 accept\n"
     "\t\tmeta l4proto tcp redirect to :15006\n\t}\n" GUARD GUARD_PORT("15001") GUARD_PORT("15006")
         GUARD_LO GUARD_REST("15006") "\t}\n"},
    {{"--proxy-uid=0", "--no-inbound", "--ipv4-only", "--outbound-port=1"},
     OUTBOUND "\t\tmeta skuid 0 accept\n"
              "\t\tmeta nfproto ipv6 accept\n"
              "\t\tmeta l4proto tcp redirect to :1\n\t}\n" GUARD GUARD_PORT("1") "\t}\n"},
    {{"--no-outbound", "--inbound-port", "2", "--exclude-inbound-ports", "22"},
     INBOUND "\t\ttcp dport 2 accept\n"
             "\t\ttcp dport { 22 } accept\n"
             "\t\tmeta l4proto tcp redirect to :2\n\t}\n" GUARD GUARD_PORT("2") GUARD_LO
     "\t\ttcp dport { 22 } accept\n" GUARD_REST("2") "\t}\n"},
    /* Overlaps are joined, families kept apart. */
    {{"--proxy-uid", "1", "--no-inbound", "--exclude-outbound-ports", "90,80-85,22,84-89,22",
      "--exclude-outbound-cidrs", "fd00::/8,10.1.0.0/16,10.0.0.0/8,10.0.0.0/8",
      "--exclude-outbound-cidrs", "192.0.2.7"},
     OUTBOUND "\t\tmeta skuid 1 accept\n"
              "\t\ttcp dport { 22, 80-89, 90 } accept\n"
              "\t\tip daddr { 10.0.0.0/8, 192.0.2.7/32 } accept\n"
              "\t\tip6 daddr { fd00::/8 } accept\n"
              "\t\tmeta l4proto tcp redirect to :15001\n\t}\n" GUARD GUARD_PORT("15001") "\t}\n"},
};

static void test_rules(void **state)
{
    (void)state;
    static struct intercept_options o;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct err err = ERR_INIT;
        struct buf out = BUF_INIT(INTERCEPT_TEXT_MAX);
        char want[4096];
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
                                   .n_exclude_blocks = INTERCEPT_RANGES_MAX};
    for (size_t i = 0; i < INTERCEPT_RANGES_MAX; i++) {
        o.exclude_inbound[i] = o.exclude_outbound[i] = (struct intercept_ports){60000, 65535};
        o.exclude_blocks[i] = (struct intercept_block){.family = AF_INET6, .prefix_len = 128};
        memset(o.exclude_blocks[i].addr, 0xab, 16);
    }
    intercept_batch(&o, NULL, &out);
    assert_true(buf_len(&out) > 30000);
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
